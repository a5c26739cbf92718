-- Plans, limits of several buckets, who changed what, and levels that outlive a restart. Nothing here is newer than
-- PostgreSQL 15.

CREATE TABLE plans (
    name          text COLLATE "C" PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 64),
    -- As limits.buckets.
    buckets       text NOT NULL,
    max_in_flight integer CHECK (max_in_flight BETWEEN 1 AND 1000000),
    -- The number of the change that wrote this row.
    version       bigint NOT NULL
);

ALTER TABLE limits
    ADD COLUMN plan          text COLLATE "C",
    -- JSON as the API shows it: [{"name","amount","per","capacity","mode","reset"}]; empty for a limit with a plan.
    ADD COLUMN buckets       text,
    ADD COLUMN max_in_flight integer CHECK (max_in_flight BETWEEN 1 AND 1000000),
    ADD COLUMN exempt        boolean NOT NULL DEFAULT false,
    ADD COLUMN shared        boolean NOT NULL DEFAULT false;

-- What was one bucket by its numbers is one bucket named "default".
UPDATE limits SET buckets =
    '[{"name":"default","amount":' || trim_scale(rate_micro * 0.000001) || ',"per":"' || rate_per_secs
    || 's","capacity":' || capacity || ',"mode":"enforced","reset":null}]';

ALTER TABLE limits
    DROP COLUMN capacity,
    DROP COLUMN rate_micro,
    DROP COLUMN rate_per_secs,
    ALTER COLUMN buckets SET NOT NULL,
    ADD FOREIGN KEY (plan) REFERENCES plans,
    ADD CHECK (plan IS NULL OR buckets = '[]'),
    ADD CHECK (exempt OR plan IS NOT NULL OR buckets <> '[]');

-- A plan's limits, counted, or page by page in byte order.
CREATE INDEX limits_by_plan ON limits (plan, client_id) WHERE plan IS NOT NULL;

-- Changes are read by number alone.
DROP INDEX changes_by_kind;

-- Appended by every mutation in its own transaction; pruned by age and number.
CREATE TABLE audit (
    -- The number of the change.
    seq    bigint PRIMARY KEY,
    -- Microseconds since 1970, UTC.
    at_us  bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    actor  text NOT NULL,
    action text NOT NULL,
    -- JSON.
    target text NOT NULL,
    before text NOT NULL,
    after  text NOT NULL
);

-- Levels of buckets, as each instance saved them last.
CREATE TABLE instance_state (
    instance    text COLLATE "C" NOT NULL CHECK (octet_length(instance) BETWEEN 1 AND 64),
    segment     smallint NOT NULL CHECK (segment BETWEEN 0 AND 255),
    bytes       bytea NOT NULL,
    -- Microseconds since 1970, UTC.
    saved_at_us bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    PRIMARY KEY (instance, segment)
);
