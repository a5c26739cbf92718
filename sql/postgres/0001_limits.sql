-- Limits by client, and what changed. Nothing here is newer than PostgreSQL 15.

-- One sequence for every version. A transaction takes its number while it holds the writers' advisory lock, so that
-- numbers are committed in order, and whoever reads on from the last one that it saw misses none.
CREATE SEQUENCE change_seq AS bigint;

CREATE TABLE limits (
    -- What the id means, once: equal addresses and ranges are equal here. Any other id is itself.
    canonical     text COLLATE "C" PRIMARY KEY,
    -- As the operator wrote it. Listings go in its byte order.
    client_id     text COLLATE "C" NOT NULL UNIQUE CHECK (octet_length(client_id) BETWEEN 1 AND 256),
    -- 0 opaque, 1 address, 2 address and port, 3 range.
    kind          smallint NOT NULL CHECK (kind BETWEEN 0 AND 3),
    -- 4 or 16 bytes in network order; a range's first address. NULL for an opaque id.
    address       bytea CHECK ((kind = 0) = (address IS NULL) AND octet_length(address) IN (4, 16)),
    port          integer CHECK ((kind = 2) = (port IS NOT NULL) AND port BETWEEN 0 AND 65535),
    capacity      bigint NOT NULL CHECK (capacity BETWEEN 0 AND 1000000000),
    -- Millionths of a token every rate_per_secs seconds.
    rate_micro    bigint NOT NULL CHECK (rate_micro BETWEEN 0 AND 1000000000000000),
    rate_per_secs integer NOT NULL CHECK (rate_per_secs BETWEEN 1 AND 86400),
    -- The number of the change that wrote this row.
    version       bigint NOT NULL
);

-- Everything that concerns one client, by one look.
CREATE INDEX limits_by_address ON limits (address) WHERE kind IN (1, 2);
CREATE INDEX limits_ranges ON limits (canonical) WHERE kind = 3;

-- Appended by every mutation in its own transaction; the oldest are pruned in the same one.
CREATE TABLE changes (
    seq  bigint PRIMARY KEY DEFAULT nextval('change_seq'),
    -- 'limit' or 'range'.
    kind text NOT NULL,
    id   text COLLATE "C" NOT NULL
);
CREATE INDEX changes_by_kind ON changes (kind, seq);
