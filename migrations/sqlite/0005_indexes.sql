-- Every index of the ledger is written with every allocation.

-- The next planned block of a pool is found without sorting all of them.
DROP INDEX block_unclaimed;
CREATE INDEX block_unclaimed ON block (pool, subnet, id) WHERE node IS NULL;

-- Rows lie in the order of addresses: one tree less.
ALTER TABLE allocation RENAME TO allocation_with_rowid;
CREATE TABLE allocation (
    subnet        BIGINT NOT NULL REFERENCES subnet (id),
    at_offset     BIGINT NOT NULL CHECK (at_offset >= 0),
    state         TEXT   NOT NULL CHECK (state IN ('held', 'released')),
    node_name     TEXT   NOT NULL,
    network       TEXT   NOT NULL,
    container_id  TEXT   NOT NULL,
    if_name       TEXT   NOT NULL,
    pod_namespace TEXT,
    pod_name      TEXT,
    pod_uid       TEXT,
    since         BIGINT NOT NULL, -- when the state began
    claim         BIGINT NOT NULL, -- of the node's request that wrote the row
    boot_seq      BIGINT NOT NULL,
    seq           BIGINT NOT NULL,
    node          BIGINT,
    block         BIGINT,
    extent_first  BIGINT,
    extent_next   BIGINT,
    PRIMARY KEY (subnet, at_offset),
    CHECK (CASE state
        WHEN 'held' THEN node IS NOT NULL AND block IS NOT NULL
            AND extent_first IS NOT NULL AND extent_next IS NOT NULL
            AND extent_first <= at_offset AND at_offset < extent_next
        ELSE node IS NULL AND block IS NULL AND extent_first IS NULL AND extent_next IS NULL END),
    FOREIGN KEY (block, node) REFERENCES block (id, node),
    FOREIGN KEY (subnet, extent_first, extent_next, block) REFERENCES extent (subnet, first, next, block)
) WITHOUT ROWID;
INSERT INTO allocation SELECT * FROM allocation_with_rowid;
DROP TABLE allocation_with_rowid;

-- One for both foreign keys: what hangs on a block, and on an extent of it. What a node holds is found by its id, what it
-- held where its block lies.
CREATE UNIQUE INDEX allocation_attachment ON allocation (node, network, container_id, if_name) WHERE node IS NOT NULL;
CREATE INDEX allocation_by_block ON allocation (block, extent_first) WHERE block IS NOT NULL;

-- Lists are in the order of addresses.
CREATE INDEX allocation_by_namespace ON allocation (pod_namespace, subnet, at_offset) WHERE state = 'held';
CREATE INDEX allocation_by_pod ON allocation (pod_name, subnet, at_offset) WHERE state = 'held';
