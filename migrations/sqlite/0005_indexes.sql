-- Every index of the ledger is written with every allocation.

-- The next planned block of a pool is found without sorting all of them.
DROP INDEX block_unclaimed;
CREATE INDEX block_unclaimed ON block (pool, subnet, id) WHERE node IS NULL;

-- One for both foreign keys: what hangs on a block, and on an extent of it.
DROP INDEX allocation_by_block;
DROP INDEX allocation_by_extent;
CREATE INDEX allocation_by_block ON allocation (block, extent_first) WHERE block IS NOT NULL;

-- What a node holds is found by its id, what it held where its block lies.
DROP INDEX allocation_by_node_name;

-- Lists are in the order of addresses.
DROP INDEX allocation_by_pod;
DROP INDEX allocation_by_pod_name;
CREATE INDEX allocation_by_namespace ON allocation (pod_namespace, subnet, at_offset) WHERE state = 'held';
CREATE INDEX allocation_by_pod ON allocation (pod_name, subnet, at_offset) WHERE state = 'held';
