//! Many nodes and pods, faster than by the service: for tests of how statements go about large tables.

use crate::Raw;

/// Nodes that a pool gets of its first planned blocks.
pub const NODES_OF_A_POOL: i64 = 50;

/// Every pool needs more planned blocks than that, of at least eight addresses, and a `forNodes` reservation that
/// begins at offset 4 of its only subnet.
const FILL: [&str; 7] = [
    "INSERT INTO node (name, pool, subnet, own4, allocator, state, claim, boot_id, boot_seq, claimed_at)
     SELECT 'n' || b.id, b.pool, b.subnet, 4 + b.id - f.first_id,
            CASE WHEN b.id % 2 = 0 THEN 'node' ELSE 'service' END, 'active', b.id, 'boot', 1, 0
     FROM block AS b JOIN (SELECT pool, MIN(id) AS first_id FROM block GROUP BY pool) AS f ON f.pool = b.pool
     WHERE b.id < f.first_id + 50",
    "UPDATE block SET node = (SELECT n.id FROM node AS n WHERE n.name = 'n' || block.id)",
    "UPDATE counter SET value = 1000000 WHERE name = 'claim'",
    "INSERT INTO allocation (subnet, at_offset, state, node_name, network, container_id, if_name, pod_namespace,
                             pod_name, since, claim, boot_seq, seq, node, block, extent_first, extent_next)
     SELECT e.subnet, e.first + k.i, 'held', n.name, 'default', 'c' || k.i, 'eth0', 'space' || b.pool,
            'pod' || b.id || '-' || k.i, 0, n.claim, 1, 1, n.id, b.id, e.first, e.next
     FROM block AS b JOIN node AS n ON n.id = b.node JOIN extent AS e ON e.block = b.id
     CROSS JOIN (SELECT 0 AS i UNION SELECT 1 UNION SELECT 2 UNION SELECT 3) AS k",
    "INSERT INTO token (id, hash, name, role, node, created_at, created_by)
     SELECT CAST(1000000000000000 + n.id AS TEXT), CAST(1000000000000000 + n.id AS TEXT) || 'f', 'node:' || n.name,
            'node', n.name, 0, 'fill'
     FROM node AS n",
    "INSERT INTO event (at, actor, source, action, subject, became)
     SELECT 0, 'fill', 'fill', 'create', 'node/' || n.name, '{}' FROM node AS n",
    "ANALYZE",
];

/// Registers [`NODES_OF_A_POOL`] nodes in every pool, half of them with a shim (those of even ids), each with a token,
/// an event and the first four addresses of its block held by `c0` to `c3`; then counts everything for the planner.
///
/// # Panics
/// The database refuses it.
pub async fn fill(database: &mut Raw) {
    for sql in FILL {
        database.execute(sql).await.unwrap();
    }
}
