-- A backend of another pool than the default one is called POOL/NAME: the name of a pool has up to 63 bytes.

CREATE TABLE backends_2 (
    name     TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 192),
    settings TEXT NOT NULL,
    version  INTEGER NOT NULL
);
INSERT INTO backends_2 SELECT name, settings, version FROM backends;
DROP TABLE backends;
ALTER TABLE backends_2 RENAME TO backends;
