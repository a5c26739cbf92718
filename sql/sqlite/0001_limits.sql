-- Limits by client, and what changed. Text compares byte by byte here by itself (BINARY collation, UTF-8).

CREATE TABLE limits (
    -- What the id means, once: equal addresses and ranges are equal here. Any other id is itself.
    canonical     TEXT NOT NULL PRIMARY KEY,
    -- As the operator wrote it. Listings go in its byte order.
    client_id     TEXT NOT NULL UNIQUE CHECK (length(CAST(client_id AS BLOB)) BETWEEN 1 AND 256),
    -- 0 opaque, 1 address, 2 address and port, 3 range.
    kind          INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 3),
    -- 4 or 16 bytes in network order; a range's first address. NULL for an opaque id.
    address       BLOB CHECK ((kind = 0) = (address IS NULL) AND length(address) IN (4, 16)),
    port          INTEGER CHECK ((kind = 2) = (port IS NOT NULL) AND port BETWEEN 0 AND 65535),
    capacity      INTEGER NOT NULL CHECK (capacity BETWEEN 0 AND 1000000000),
    -- Millionths of a token every rate_per_secs seconds.
    rate_micro    INTEGER NOT NULL CHECK (rate_micro BETWEEN 0 AND 1000000000000000),
    rate_per_secs INTEGER NOT NULL CHECK (rate_per_secs BETWEEN 1 AND 86400),
    -- The number of the change that wrote this row.
    version       INTEGER NOT NULL
);

-- Everything that concerns one client, by one look.
CREATE INDEX limits_by_address ON limits (address) WHERE kind IN (1, 2);
CREATE INDEX limits_ranges ON limits (canonical) WHERE kind = 3;

-- Appended by every mutation in its own transaction; the oldest are pruned in the same one. AUTOINCREMENT is the one
-- sequence for every version: a number is never given out twice.
CREATE TABLE changes (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    -- 'limit' or 'range'.
    kind TEXT NOT NULL,
    id   TEXT NOT NULL
);
CREATE INDEX changes_by_kind ON changes (kind, seq);
