-- Plans, limits of several buckets, who changed what, and levels that outlive a restart.

CREATE TABLE plans (
    name          TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 64),
    -- As limits.buckets.
    buckets       TEXT NOT NULL,
    max_in_flight INTEGER CHECK (max_in_flight BETWEEN 1 AND 1000000),
    -- The number of the change that wrote this row.
    version       INTEGER NOT NULL
);

-- Made anew: SQLite takes no condition off a column.
CREATE TABLE limits_next (
    -- What the id means, once: equal addresses and ranges are equal here. Any other id is itself.
    canonical     TEXT NOT NULL PRIMARY KEY,
    -- As the operator wrote it. Listings go in its byte order.
    client_id     TEXT NOT NULL UNIQUE CHECK (length(CAST(client_id AS BLOB)) BETWEEN 1 AND 256),
    -- 0 opaque, 1 address, 2 address and port, 3 range.
    kind          INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 3),
    -- 4 or 16 bytes in network order; a range's first address. NULL for an opaque id.
    address       BLOB CHECK ((kind = 0) = (address IS NULL) AND length(address) IN (4, 16)),
    port          INTEGER CHECK ((kind = 2) = (port IS NOT NULL) AND port BETWEEN 0 AND 65535),
    plan          TEXT REFERENCES plans,
    -- JSON as the API shows it: [{"name","amount","per","capacity","mode","reset"}]; empty for a limit with a plan.
    buckets       TEXT NOT NULL,
    max_in_flight INTEGER CHECK (max_in_flight BETWEEN 1 AND 1000000),
    exempt        INTEGER NOT NULL DEFAULT 0 CHECK (exempt IN (0, 1)),
    shared        INTEGER NOT NULL DEFAULT 0 CHECK (shared IN (0, 1)),
    -- The number of the change that wrote this row.
    version       INTEGER NOT NULL,
    CHECK (plan IS NULL OR buckets = '[]'),
    CHECK (exempt OR plan IS NOT NULL OR buckets <> '[]')
);

-- What was one bucket by its numbers is one bucket named "default".
INSERT INTO limits_next (canonical, client_id, kind, address, port, buckets, version)
SELECT canonical, client_id, kind, address, port,
    '[{"name":"default","amount":' || (rate_micro / 1000000)
    || CASE WHEN rate_micro % 1000000 = 0 THEN ''
            ELSE '.' || rtrim(printf('%06d', rate_micro % 1000000), '0') END
    || ',"per":"' || rate_per_secs || 's","capacity":' || capacity || ',"mode":"enforced","reset":null}]',
    version
FROM limits;

DROP TABLE limits;
ALTER TABLE limits_next RENAME TO limits;

-- Everything that concerns one client, by one look.
CREATE INDEX limits_by_address ON limits (address) WHERE kind IN (1, 2);
CREATE INDEX limits_ranges ON limits (canonical) WHERE kind = 3;
-- A plan's limits, counted, or page by page in byte order.
CREATE INDEX limits_by_plan ON limits (plan, client_id) WHERE plan IS NOT NULL;

-- Changes are read by number alone.
DROP INDEX changes_by_kind;

-- Appended by every mutation in its own transaction; pruned by age and number.
CREATE TABLE audit (
    -- The number of the change.
    seq    INTEGER PRIMARY KEY,
    -- Microseconds since 1970, UTC.
    at_us  INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000),
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    -- JSON.
    target TEXT NOT NULL,
    before TEXT NOT NULL,
    after  TEXT NOT NULL
);

-- Levels of buckets, as each instance saved them last.
CREATE TABLE instance_state (
    instance    TEXT NOT NULL CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    segment     INTEGER NOT NULL CHECK (segment BETWEEN 0 AND 255),
    bytes       BLOB NOT NULL,
    -- Microseconds since 1970, UTC.
    saved_at_us INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000),
    PRIMARY KEY (instance, segment)
);
