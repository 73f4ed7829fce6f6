//! Many nodes and pods, faster than by the service: for tests of how statements go about large tables.

use crate::Raw;

/// What the service's own registrations and allocations would leave, in its tables.
fn statements(nodes: i64, held: i64) -> [String; 8] {
    let offsets: Vec<String> = (0..held).map(|i| format!("SELECT {i} AS i")).collect();
    [
        format!(
            "INSERT INTO node (name, pool, subnet, own4, allocator, state, claim, boot_id, boot_seq, claimed_at)
             SELECT 'n' || b.id, b.pool, b.subnet, 4 + b.id - f.first_id,
                    CASE WHEN b.id % 2 = 0 THEN 'node' ELSE 'service' END, 'active', b.id, 'boot', 1, 0
             FROM block AS b JOIN (SELECT pool, MIN(id) AS first_id FROM block GROUP BY pool) AS f ON f.pool = b.pool
             WHERE b.id < f.first_id + {nodes}"
        ),
        "UPDATE block SET node = (SELECT n.id FROM node AS n WHERE n.name = 'n' || block.id)".to_owned(),
        "UPDATE counter SET value = 1000000 WHERE name = 'claim'".to_owned(),
        format!(
            "INSERT INTO allocation (subnet, at_offset, state, node_name, network, container_id, if_name,
                                     pod_namespace, pod_name, since, claim, boot_seq, seq, node, block,
                                     extent_first, extent_next)
             SELECT e.subnet, e.first + k.i, 'held', n.name, 'default', 'c' || k.i, 'eth0', 'space' || b.pool,
                    'pod' || b.id || '-' || k.i, 0, n.claim, 1, 1, n.id, b.id, e.first, e.next
             FROM block AS b JOIN node AS n ON n.id = b.node JOIN extent AS e ON e.block = b.id
             CROSS JOIN ({}) AS k",
            offsets.join(" UNION ")
        ),
        "INSERT INTO usage (subnet, pool, slot, used)
         SELECT b.subnet, b.pool, 0, COUNT(*) FROM allocation AS a JOIN block AS b ON b.id = a.block
         GROUP BY b.subnet, b.pool"
            .to_owned(),
        "INSERT INTO token (id, hash, name, role, node, created_at, created_by)
         SELECT CAST(1000000000000000 + n.id AS TEXT), CAST(1000000000000000 + n.id AS TEXT) || 'f',
                'node:' || n.name, 'node', n.name, 0, 'fill'
         FROM node AS n"
            .to_owned(),
        "INSERT INTO event (at, actor, source, action, subject, became)
         SELECT 0, 'fill', 'fill', 'create', 'node/' || n.name, '{}' FROM node AS n"
            .to_owned(),
        "ANALYZE".to_owned(),
    ]
}

/// Registers so many nodes in every pool, half of them with a shim (those of even ids), each with a token, an event and
/// the first `held` addresses of its block held by `c0`, `c1` and so on; then counts everything for the planner.
///
/// Every pool needs more planned blocks than that, made one pool after another, of at least twice as many addresses as
/// are held, and a `forNodes` reservation that begins at offset 4 of its only subnet.
///
/// # Panics
/// The database refuses it.
pub async fn fill(database: &mut Raw, nodes_of_a_pool: i64, held: i64) {
    for sql in statements(nodes_of_a_pool, held) {
        database.execute(&sql).await.unwrap();
    }
}
