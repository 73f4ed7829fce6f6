-- The logical schema; migrations/postgres has the same under the same numbers.
-- Numbers are BIGINT, names TEXT, times milliseconds since 1970, flags 0 or 1.
-- A position is an offset on its subnet's number line; intervals are half open: [first, next).

CREATE TABLE vnet (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    address_space TEXT    NOT NULL, -- JSON list of CIDRs
    service_cidrs TEXT    NOT NULL, -- JSON list of CIDRs
    version       BIGINT  NOT NULL CHECK (version >= 1),
    created_at    BIGINT  NOT NULL
);

-- head and tail anchor the chain of extents at both ends of the line.
CREATE TABLE subnet (
    id               INTEGER PRIMARY KEY,
    vnet             BIGINT NOT NULL REFERENCES vnet (id),
    name             TEXT   NOT NULL,
    cidr4            TEXT,
    cidr6            TEXT,
    gateway4         TEXT,
    gateway6         TEXT,
    reserve_platform BIGINT NOT NULL CHECK (reserve_platform IN (0, 1)),
    head             BIGINT NOT NULL DEFAULT 0 CHECK (head = 0),
    length           BIGINT NOT NULL CHECK (length >= 1),
    tail             TEXT   NOT NULL DEFAULT 'end' CHECK (tail = 'end'),
    version          BIGINT NOT NULL CHECK (version >= 1),
    created_at       BIGINT NOT NULL,
    UNIQUE (vnet, name),
    CHECK (cidr4 IS NOT NULL OR cidr6 IS NOT NULL),
    FOREIGN KEY (id, head) REFERENCES extent (subnet, first) DEFERRABLE INITIALLY DEFERRED,
    FOREIGN KEY (id, length, tail) REFERENCES extent (subnet, first, kind) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE reservation (
    id         INTEGER PRIMARY KEY,
    subnet     BIGINT NOT NULL REFERENCES subnet (id),
    name       TEXT   NOT NULL,
    first      BIGINT NOT NULL CHECK (first >= 0),
    next       BIGINT NOT NULL CHECK (next > first),
    reason     TEXT   NOT NULL,
    for_nodes  BIGINT NOT NULL CHECK (for_nodes IN (0, 1)),
    platform   BIGINT NOT NULL CHECK (platform IN (0, 1)),
    version    BIGINT NOT NULL CHECK (version >= 1),
    created_at BIGINT NOT NULL,
    UNIQUE (subnet, name),
    UNIQUE (id, subnet)
);

CREATE TABLE pool (
    id           INTEGER PRIMARY KEY,
    name         TEXT   NOT NULL UNIQUE,
    max_pods     BIGINT NOT NULL CHECK (max_pods >= 1),
    nodes        BIGINT NOT NULL CHECK (nodes >= 0),
    surge        TEXT   NOT NULL, -- '1' or '10%'
    headroom     BIGINT NOT NULL CHECK (headroom >= 0),
    alignment    TEXT   NOT NULL CHECK (alignment IN ('exact', 'prefix')),
    contiguous   TEXT   NOT NULL CHECK (contiguous IN ('preferred', 'required')),
    node_address TEXT   NOT NULL CHECK (node_address IN ('external', 'assigned')),
    rest_seconds BIGINT NOT NULL CHECK (rest_seconds >= 0),
    version      BIGINT NOT NULL CHECK (version >= 1),
    created_at   BIGINT NOT NULL
);

CREATE TABLE pool_subnet (
    pool     BIGINT NOT NULL REFERENCES pool (id),
    position BIGINT NOT NULL CHECK (position >= 0), -- in the order the user gave
    subnet   BIGINT NOT NULL REFERENCES subnet (id),
    nodes    BIGINT CHECK (nodes >= 0),
    PRIMARY KEY (pool, position),
    UNIQUE (pool, subnet)
);
CREATE INDEX pool_subnet_by_subnet ON pool_subnet (subnet);

-- Counters of the whole service. 'claim': the last number given, claims are never numbered twice.
-- 'change': rises with every change that a plan may depend on.
CREATE TABLE counter (
    name  TEXT   PRIMARY KEY,
    value BIGINT NOT NULL CHECK (value >= 0)
);
INSERT INTO counter (name, value) VALUES ('claim', 0), ('change', 1);

CREATE TABLE node (
    id           INTEGER PRIMARY KEY,
    name         TEXT   NOT NULL UNIQUE,
    pool         BIGINT NOT NULL REFERENCES pool (id),
    subnet       BIGINT NOT NULL REFERENCES subnet (id),
    own4         BIGINT, -- offset of its own IPv4 address
    own6         BIGINT, -- offset of its own IPv6 address
    uid          TEXT,
    mac          TEXT,
    machine      TEXT,
    allocator    TEXT   NOT NULL CHECK (allocator IN ('node', 'service')),
    state        TEXT   NOT NULL CHECK (state IN ('planned', 'active', 'deleting')),
    deletion     TEXT,
    claim        BIGINT NOT NULL UNIQUE,
    boot_id      TEXT,
    boot_seq     BIGINT NOT NULL DEFAULT 0, -- 0: no boot heard of
    floor_seq    BIGINT NOT NULL DEFAULT 0, -- asOfSeq of the last sync of that boot
    last_contact BIGINT,
    claimed_at   BIGINT NOT NULL,
    version      BIGINT NOT NULL DEFAULT 1 CHECK (version >= 1),
    UNIQUE (subnet, own4),
    UNIQUE (subnet, own6),
    CHECK ((state = 'deleting') = (deletion IS NOT NULL))
);
CREATE INDEX node_by_pool ON node (pool);

-- VMs that a node was before another took their place: a late word of one must not end its successor.
CREATE TABLE replaced (
    node BIGINT NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    uid  TEXT   NOT NULL,
    PRIMARY KEY (node, uid)
);

-- A node's addresses, planned (node null) or claimed.
CREATE TABLE block (
    id      INTEGER PRIMARY KEY,
    pool    BIGINT NOT NULL REFERENCES pool (id),
    subnet  BIGINT NOT NULL REFERENCES subnet (id),
    node    BIGINT UNIQUE REFERENCES node (id),
    version BIGINT NOT NULL CHECK (version >= 1),
    UNIQUE (id, subnet),
    UNIQUE (id, node)
);
CREATE INDEX block_unclaimed ON block (pool, subnet) WHERE node IS NULL;
CREATE INDEX block_by_pool ON block (pool);
CREATE INDEX block_by_subnet ON block (subnet, node);

-- The tiles of every subnet, chained: a tile's next is the first of another, up to the end row.
CREATE TABLE extent (
    subnet      BIGINT NOT NULL REFERENCES subnet (id) DEFERRABLE INITIALLY DEFERRED,
    first       BIGINT NOT NULL CHECK (first >= 0),
    next        BIGINT CHECK (next > first),
    kind        TEXT   NOT NULL CHECK (kind IN ('free', 'reserved', 'block', 'end')),
    reservation BIGINT,
    node        BIGINT REFERENCES node (id), -- whose own address it is
    block       BIGINT,
    PRIMARY KEY (subnet, first),
    UNIQUE (subnet, next),
    UNIQUE (subnet, first, kind),
    UNIQUE (subnet, first, next, block),
    CHECK ((kind = 'end') = (next IS NULL)),
    CHECK ((kind = 'block') = (block IS NOT NULL)),
    CHECK (CASE kind WHEN 'reserved' THEN (reservation IS NULL) <> (node IS NULL)
                     ELSE reservation IS NULL AND node IS NULL END),
    FOREIGN KEY (subnet, next) REFERENCES extent (subnet, first) DEFERRABLE INITIALLY DEFERRED,
    FOREIGN KEY (reservation, subnet) REFERENCES reservation (id, subnet) DEFERRABLE INITIALLY DEFERRED,
    FOREIGN KEY (block, subnet) REFERENCES block (id, subnet) DEFERRABLE INITIALLY DEFERRED
);
CREATE UNIQUE INDEX extent_end ON extent (subnet) WHERE kind = 'end';
CREATE INDEX extent_free ON extent (subnet, first, next) WHERE kind = 'free';
-- By size: the smallest and the largest hole.
CREATE INDEX extent_free_by_size ON extent (subnet, (next - first), first) WHERE kind = 'free';
-- With all columns of the foreign keys: a deleted block must not be looked for in its whole subnet.
CREATE INDEX extent_by_block ON extent (block, subnet) WHERE block IS NOT NULL;
CREATE INDEX extent_by_node ON extent (node) WHERE node IS NOT NULL;
CREATE INDEX extent_by_reservation ON extent (reservation, subnet) WHERE reservation IS NOT NULL;

-- The ledger: one row for every address that was ever held, with the newest word on it.
-- While it is held it hangs on its node's block and on the extent around it, so neither can go.
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
);
CREATE UNIQUE INDEX allocation_attachment ON allocation (node, network, container_id, if_name) WHERE node IS NOT NULL;
CREATE INDEX allocation_by_block ON allocation (block, node) WHERE block IS NOT NULL;
CREATE INDEX allocation_by_extent ON allocation (subnet, extent_first, extent_next, block) WHERE block IS NOT NULL;
-- Lists are in the order of addresses.
CREATE INDEX allocation_by_node_name ON allocation (node_name, subnet, at_offset);
CREATE INDEX allocation_by_pod ON allocation (pod_namespace, pod_name) WHERE state = 'held';
CREATE INDEX allocation_by_pod_name ON allocation (pod_name) WHERE state = 'held';

-- Strangers that answered for an address of a block.
CREATE TABLE conflict (
    subnet    BIGINT NOT NULL REFERENCES subnet (id),
    at_offset BIGINT NOT NULL CHECK (at_offset >= 0),
    node      BIGINT NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    mac       TEXT   NOT NULL,
    seen_at   BIGINT NOT NULL,
    PRIMARY KEY (subnet, at_offset)
);
CREATE INDEX conflict_by_node ON conflict (node);
