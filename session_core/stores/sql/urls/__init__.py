"""URLs of databases: as hosters give them, translated to what each driver takes."""
