-- A limit of which each instance counts alone, although the others on this database share their budgets.

ALTER TABLE limits ADD COLUMN per_instance INTEGER NOT NULL DEFAULT 0 CHECK (per_instance IN (0, 1));
