"""The files in `deploy/`: each passes a linter or parser and names only existing settings and commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.settings.settings import Settings
from tests.app.test_app_serve import serving
from tests.support.certificates import make_certificate
from tests.support.environments import ROOT
from tests.support.ports import free_ports

DEPLOY = ROOT / "deploy"
# From Debian's packages `nginx` and `prometheus`; tests that need them run only where they are installed.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
PROMTOOL = shutil.which("promtool")
SETTINGS = {name.upper() for name in Settings.model_fields}


def program(name: str, install: str) -> str:
    """The path of a program of this environment or the system. Without it the test is skipped, or fails with CI=true."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        message = f"{name} is not installed: {install}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment})


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def test_the_container_file_passes_its_linter() -> None:
    result = run(program("hadolint", "uv sync --group deploy"), str(DEPLOY / "container" / "Containerfile"))
    assert (result.returncode, result.stdout) == (0, "")


def test_the_container_runs_unprivileged_and_copies_existing_files() -> None:
    lines = (DEPLOY / "container" / "Containerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines
    copied = [part for line in lines if line.startswith("COPY ") and "--from" not in line for part in line.split()[1:-1]]
    names = {name.removeprefix("./") for name in copied}
    assert [name for name in names if not (ROOT / name).exists()] == []
    # Nothing else is sent to the builder: `deploy/compose/` has files with secrets.
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == names


def test_git_ignores_the_files_with_secrets() -> None:
    ignored = set((ROOT / ".gitignore").read_text().splitlines())
    assert {".env", "/deploy/compose/settings.env"} <= ignored
    page = (DEPLOY / "README.md").read_text()
    assert set(re.findall(r"> (deploy/compose/\S+)|(deploy/compose/settings\.env)$", page, re.MULTILINE)) == {
        ("deploy/compose/.env", ""),
        ("", "deploy/compose/settings.env"),
    }


def test_every_variable_of_the_compose_file_is_in_the_file_that_compose_reads() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose" / "compose.yaml").read_text()))
    line = re.search(r"printf '(.*)' > deploy/compose/\.env", (DEPLOY / "README.md").read_text())
    assert line is not None
    assert set(re.findall(r"([A-Z_]+)=", line[1])) == asked


def test_the_documented_commands_name_what_the_files_have() -> None:
    """The commands of docs/how-to/deploy.md for an installed application."""
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    unit = (DEPLOY / "systemd" / "app.service").read_text()
    for name in ("User", "EnvironmentFile", "WorkingDirectory"):
        assert f"-p {re.findall(rf'(?m)^{name}=.*$', unit)[0]} " in page
    assert re.findall(r"ExecStartPre=(\S+ check)", unit)[0] in page
    compose = documents(DEPLOY / "compose" / "compose.yaml")[0]
    service = re.search(r"docker compose -f (\S+) run --rm --no-deps (\w+) ", page)
    assert service is not None
    assert (ROOT / service[1]).is_file()
    assert service[2] in compose["services"]
    kinds = {each["kind"]: each["metadata"]["name"] for each in documents(DEPLOY / "kubernetes" / "app.yaml")}
    assert f"kubectl exec deploy/{kinds['Deployment']} -- litestar" in page
    assert (ROOT / "deploy" / "kubernetes" / "migrate.yaml").is_file()


def test_the_compose_file_is_valid_and_complete() -> None:
    path = DEPLOY / "compose" / "compose.yaml"
    result = run(program("check-jsonschema", "uv sync --group dev"), "--builtin-schema", "vendor.compose-spec", str(path))
    assert result.returncode == 0, result.stdout
    compose = documents(path)[0]
    example = (DEPLOY / "compose" / "settings.env.example").read_text()
    given = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)) | set(compose["services"]["app"]["environment"])
    assert given <= SETTINGS
    assert {"SESSION_SECRETS", "SESSION_ENCRYPTION_KEYS", "OIDC_CLIENT_SECRET", "PUBLIC_URL", "TRUSTED_PROXIES"} <= given
    address = compose["services"]["proxy"]["networks"]["inside"]["ipv4_address"]
    assert compose["services"]["app"]["environment"]["TRUSTED_PROXIES"] == address
    common = set(compose["services"]["proxy"]["networks"]) & set(compose["services"]["app"]["networks"])
    assert common == {"inside"}  # on another network the proxy has another address


def test_the_kubernetes_manifests_are_valid() -> None:
    files = sorted(str(path) for path in (DEPLOY / "kubernetes").glob("*.yaml"))
    validate = program("kubernetes-validate", "uv sync --group deploy")
    result = run(validate, "-k", "1.33", "--strict", *files)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_kubernetes_manifests_match_the_application() -> None:
    found = {each["kind"]: each for path in (DEPLOY / "kubernetes").glob("*.yaml") for each in documents(path)}
    assert set(found["ConfigMap"]["data"]) <= SETTINGS
    for kind in ("Deployment", "Job"):
        pod = found[kind]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        # Kubernetes service variables such as APP_PORT would look like settings.
        assert pod["enableServiceLinks"] is False
    stop = found["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert stop > 5 + 8
    container = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_the_systemd_unit_is_valid(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "apt-get install systemd")
    unit = (DEPLOY / "systemd" / "app.service").read_text()
    commands = re.findall(r"^Exec\w+=(\S+)", unit, re.MULTILINE)
    assert {Path(command).name for command in commands} == {"litestar", "serve"}
    for command in commands:
        assert (Path(sys.executable).parent / Path(command).name).exists()
        unit = unit.replace(command, shutil.which("true") or "/bin/true")
    (tmp_path / "app.service").write_text(unit)
    result = run(analyze, "verify", str(tmp_path / "app.service"))
    assert (result.returncode, result.stderr) == (0, "")


def test_the_nginx_file_is_valid(tmp_path: Path) -> None:
    main = tmp_path / "nginx.conf"
    main.write_text(f"events {{}}\nhttp {{\n  include {DEPLOY}/nginx/app.conf;\n}}\n")
    result = run(program("crossplane", "uv sync --group dev"), "parse", str(main))
    parsed = json.loads(result.stdout)
    assert (parsed["status"], parsed["errors"]) == ("ok", [])


def test_the_caddyfile_is_valid() -> None:
    caddy = program("caddy", "uv sync --group deploy")
    file = str(DEPLOY / "caddy" / "Caddyfile")
    environment = {"APP_HOST": "app.example.org", "APP_UPSTREAM": "127.0.0.1:8000"}
    result = run(caddy, "validate", "--config", file, "--adapter", "caddyfile", **environment)
    assert result.returncode == 0, result.stderr
    assert run(caddy, "fmt", "--diff", file).stdout.count("\n-") == 0


def test_the_proxies_replace_forwarding_headers_of_clients() -> None:
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in (DEPLOY / "nginx" / "app.conf").read_text()
    assert "trusted_proxies" not in (DEPLOY / "caddy" / "Caddyfile").read_text()


@contextmanager
def behind_caddy(directory: Path, port: str) -> Iterator[httpx.Client]:
    """A client of the application on this port, through Caddy with its sample."""
    caddy = program("caddy", "uv sync --group deploy")
    proxy_port, admin_port = free_ports(2)
    file = directory / "Caddyfile"
    file.write_text((DEPLOY / "caddy" / "Caddyfile").read_text().replace("{\n", f"{{\n\tadmin 127.0.0.1:{admin_port}\n", 1))
    settings = {"APP_HOST": f"http://127.0.0.1:{proxy_port}", "APP_UPSTREAM": f"127.0.0.1:{port}", "HOME": str(directory)}
    with running(caddy, "run", "--config", str(file), **settings):
        yield client_of(f"http://127.0.0.1:{proxy_port}")


@contextmanager
def behind_nginx(directory: Path, port: str) -> Iterator[httpx.Client]:
    """The same through nginx, by https."""
    plain_port, tls_port = free_ports(2)
    certificate, key = make_certificate(directory)
    sample = (DEPLOY / "nginx" / "app.conf").read_text()
    for found, used in (
        (r"server 127.0.0.1:8000;", f"server 127.0.0.1:{port};"),
        (r"(?m)^ *listen \[::\].*\n", ""),
        (r"listen 80;", f"listen 127.0.0.1:{plain_port};"),
        (r"(?m)^( *)listen 443", rf"\1listen 127.0.0.1:{tls_port}"),
        (r"/etc/ssl/app/fullchain.pem", str(certificate)),
        (r"/etc/ssl/app/privkey.pem", str(key)),
    ):
        sample, count = re.subn(found, used, sample)
        assert count
    (directory / "app.conf").write_text(sample)
    scratch = "".join(f"{name}_temp_path {directory}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = directory / "nginx.conf"
    main.write_text(
        f"daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr; events {{}} "
        f"http {{ access_log off; {scratch} include {directory}/app.conf; }}"
    )
    with running(str(NGINX), "-c", str(main)):
        with client_of(f"http://127.0.0.1:{plain_port}") as plain:
            led = plain.get("/account?x=1")
            assert (led.status_code, led.headers["location"]) == (308, "https://app.example.org/account?x=1")
        yield client_of(f"https://127.0.0.1:{tls_port}")


@contextmanager
def running(*command: str, **environment: str) -> Iterator[None]:
    """A program that runs as long as the block."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def client_of(url: str) -> httpx.Client:
    """A client that waits until the port is open, and accepts every certificate."""
    return httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=8, verify=False), timeout=20)


PROXIES = {"caddy": behind_caddy, **({"nginx": behind_nginx} if NGINX else {})}


@pytest.mark.parametrize("name", PROXIES)
def test_the_application_is_served_behind_a_proxy(tmp_path: Path, name: str) -> None:
    """The container's health check, `/metrics` on its own address, and requests through the proxy."""
    (metrics_port,) = free_ports(1)
    environment = {
        "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/app.db",
        "SESSION_STORE": f"sqlite:///{tmp_path}/app.db",
        "TRUSTED_PROXIES": "127.0.0.1",
        "APP_METRICS_ADDRESS": f"127.0.0.1:{metrics_port}",
        "LIMIT_LOGINS": "2",
    }
    with serving(tmp_path, "--workers", "2", **environment) as (_, url):
        port = url.rpartition(":")[2]
        check = re.search(r'CMD (\["python".*\])', (DEPLOY / "container" / "Containerfile").read_text())
        assert check is not None
        _, *arguments = json.loads(check[1].replace(":8000", f":{port}"))
        assert run(sys.executable, *arguments).returncode == 0
        assert run(sys.executable, *(each.replace(f":{port}", ":1") for each in arguments)).returncode != 0

        with PROXIES[name](tmp_path, port) as client, client as http:
            assert http.get("/health/live", headers={"x-request-id": "invented"}).headers["x-request-id"] != "invented"
            assert [http.get(path).status_code for path in ("/metrics", "/health/ready")] == [404, 404]
            assert http.post("/api/session/visits").json() == {"visits": 1}
            # The proxy replaces a client's forwarding headers: the limit holds, over both workers.
            answers = [
                http.get("/auth/callback?state=x", headers={"x-forwarded-for": f"192.0.2.{number}"}).status_code
                for number in range(4)
            ]
            assert answers == [400, 400, 429, 429]
        assert httpx.get(f"{url}/metrics").status_code == 404
        text = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
        assert 'http_requests_total{method="GET",route="/auth/callback",status="429"} 2.0' in text
        assert 'store_call_seconds_bucket{call="create"' in text


def test_the_prometheus_file_scrapes_what_the_docs_say_and_has_the_alerts() -> None:
    folder = DEPLOY / "prometheus"
    (config,) = documents(folder / "prometheus.yml")
    assert [(folder / name).is_file() for name in config["rule_files"]] == [True]
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert f"APP_METRICS_ADDRESS={target}" in (ROOT / "docs" / "how-to" / "telemetry.md").read_text()
    for kind, name in (("config", "prometheus.yml"), ("rules", "alerts.yaml")):
        if PROMTOOL:
            result = run(PROMTOOL, "check", kind, str(folder / name))
            assert result.returncode == 0, result.stdout + result.stderr
