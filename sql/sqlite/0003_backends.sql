-- Backends that the API added, and what it changed of those in the configuration file.

CREATE TABLE backends (
    name     TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 128),
    -- JSON: {"url","weight","max_in_flight","state","backup"}, each only where it was said. Without "url" it changes the
    -- backend of that name in the configuration file.
    settings TEXT NOT NULL,
    -- The number of the change that wrote this row.
    version  INTEGER NOT NULL
);
