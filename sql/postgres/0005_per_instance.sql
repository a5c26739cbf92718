-- A limit of which each instance counts alone, although the others on this database share their budgets.

ALTER TABLE limits ADD COLUMN per_instance boolean NOT NULL DEFAULT false;
