"""Sessions in engines with conditional writes: DynamoDB, S3, Azure Blob Storage, MongoDB, Memcached."""
