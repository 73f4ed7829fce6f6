//! The ledger against what each node told by its last sync, and credentials that nobody can use rightly.

use super::Check;
use crate::store::db::Sql;
use ipam_api::wire::Severity;

const fn attention(code: &'static str, cure: &'static str, sql: &'static str) -> Check {
    Check {
        code,
        severity: Severity::Attention,
        cure,
        repairable: false,
        sql: Sql { sqlite: sql, postgres: sql },
    }
}

/// Joins a node with its last sync in its present claim.
macro_rules! nodes {
    ($detail:literal, $where:literal) => {
        concat!(
            "SELECT 'node/' || n.name, ",
            $detail,
            " FROM node AS n JOIN block AS b ON b.node = n.id
              LEFT JOIN last_sync AS l ON l.node = n.id AND l.claim = n.claim
              WHERE n.allocator = 'node' AND ",
            $where,
            " ORDER BY n.name LIMIT 100"
        )
    };
}

const SYNC: &str = "look whether the node runs and reaches the service (cni-shim status there), then run cni-shim sync; \
                    if its VM is gone, ipamctl node delete NODE --vm-gone";

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "refused-addresses",
        severity: Severity::Broken,
        cure: "end those pods: cni-shim status on the node names them, and the service may give their addresses to others",
        repairable: false,
        sql: Sql {
            sqlite: REFUSED,
            postgres: REFUSED,
        },
    },
    attention("never-synced", SYNC, nodes!(
        "'it has taken its claim up, and no list of its pods is on record'",
        "l.node IS NULL AND n.state <> 'planned' AND n.claimed_at < $1 - 3600000")),
    attention("silent-node", SYNC, nodes!(
        "'it was last heard of ' || CAST(($1 - n.last_contact) / 86400000 AS TEXT) || ' days ago'",
        "n.last_contact < $1 - 604800000")),
    attention("unsynced-boot",
        "run cni-shim sync on the node: until then nobody knows which of its pods the new boot has",
        nodes!("'it has restarted and not listed its pods since'",
            "l.boot_seq < n.boot_seq AND n.last_contact < $1 - 3600000")),
    attention("old-block", SYNC, nodes!(
        "'its last sync was made with version ' || CAST(l.block_version AS TEXT) || ' of its block, which is at '
            || CAST(b.version AS TEXT) || ': it does not know the block, or has pods outside it'",
        "l.block_version < b.version AND l.at < $1 - 600000")),
    attention("held-unlisted", "run cni-shim sync on the node: what it does not list is released", nodes!(
        "'the ledger has addresses held that it did not list in its last sync'",
        "l.live - l.refused < (SELECT COUNT(*) FROM allocation AS a WHERE a.node = n.id AND a.claim = l.claim
            AND a.boot_seq = l.boot_seq AND a.seq <= l.as_of)")),
    attention("held-by-former-claim", "run cni-shim sync on the node: what it does not list is released", nodes!(
        "'the ledger has addresses held by an earlier claim or boot of it'",
        "EXISTS (SELECT 1 FROM allocation AS a WHERE a.node = n.id
            AND (a.claim <> n.claim OR a.boot_seq < n.boot_seq))")),
    attention("waits-for-end", SYNC, nodes!(
        "'it is being deleted, and has not confirmed for a day that its block is empty'",
        "n.state = 'deleting' AND COALESCE(n.last_contact, n.claimed_at) < $1 - 86400000")),
    Check {
        code: "expired-token",
        severity: Severity::Attention,
        cure: "ipamctl fsck --repair takes it away: it opens nothing",
        repairable: true,
        sql: Sql {
            sqlite: EXPIRED,
            postgres: EXPIRED,
        },
    },
    attention("token-of-nobody", "ipamctl token revoke ID, if its node is not about to be registered", OF_NOBODY),
];

const REFUSED: &str = nodes!(
    "'it has ' || CAST(l.refused AS TEXT) || ' pods on addresses that are not its own to give'",
    "l.refused > 0"
);

const EXPIRED: &str = "SELECT 'token/' || t.id, t.name || ' has expired more than thirty days ago'
    FROM token AS t WHERE t.expires_at < $1 - 2592000000 ORDER BY t.id LIMIT 100";

// A token may be there before its node is; one that was used is not about to be.
const OF_NOBODY: &str = "SELECT 'token/' || t.id, 'it is node ' || t.node || '''s, which is not registered'
    FROM token AS t WHERE t.role = 'node' AND t.created_at < $1 - 86400000
      AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.name = t.node) ORDER BY t.id LIMIT 100";
