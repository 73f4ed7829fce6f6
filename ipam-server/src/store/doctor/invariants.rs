//! The rules that hold whatever the time is, as questions to which the answer is no row.

use super::Check;
use crate::store::{db::Sql, usage::off};
use ipam_api::wire::Severity;

/// What cannot be put right without knowing which of two rows is true.
const RESTORE: &str = "stop the service, keep a copy of the database, restore the last good backup (docs/operations.md) \
                       and report the defect";
const REPAIR: &str = "ipamctl fsck --repair does it";

const fn broken(code: &'static str, sql: &'static str) -> Check {
    Check {
        code,
        severity: Severity::Broken,
        cure: RESTORE,
        repairable: false,
        sql: Sql { sqlite: sql, postgres: sql },
    }
}

const fn mendable(code: &'static str, severity: Severity, sql: &'static str) -> Check {
    Check { code, severity, cure: REPAIR, repairable: true, sql: Sql { sqlite: sql, postgres: sql } }
}

/// `'subnet/v/a'` of a row's subnet, or its number where there is none.
macro_rules! subnet_of {
    ($row:literal) => {
        concat!(
            "'subnet/' || COALESCE((SELECT v.name || '/' || s.name FROM subnet AS s JOIN vnet AS v ON v.id = s.vnet
             WHERE s.id = ", $row, ".subnet), '#' || CAST(", $row, ".subnet AS TEXT))"
        )
    };
}

/// A question whose rows are about subnets: alias of the row, detail, the rest.
macro_rules! of_subnet {
    ($row:literal, $detail:literal, $rest:expr) => {
        concat!("SELECT ", subnet_of!($row), ", ", $detail, " ", $rest, " LIMIT 100")
    };
}

macro_rules! plain {
    ($object:literal, $detail:literal, $rest:literal) => {
        concat!("SELECT ", $object, ", ", $detail, " ", $rest, " LIMIT 100")
    };
}

pub(super) const CHECKS: &[Check] = &[
    // 1. A subnet is always tiled.
    broken("gap", of_subnet!("e",
        "'the extent at ' || CAST(e.first AS TEXT) || ' ends at ' || CAST(e.next AS TEXT) || ' and none begins there'",
        "FROM extent AS e WHERE e.next IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM extent AS f WHERE f.subnet = e.subnet AND f.first = e.next)
         ORDER BY e.subnet, e.first")),
    broken("overlap", of_subnet!("e",
        "'the extents at ' || CAST(e.first AS TEXT) || ' and ' || CAST(f.first AS TEXT) || ' overlap'",
        "FROM extent AS e JOIN extent AS f ON f.subnet = e.subnet AND f.first > e.first AND f.first < e.next
         ORDER BY e.subnet, e.first")),
    broken("untiled-end", plain!("'subnet/' || v.name || '/' || s.name",
        "'its extents do not reach from its first to its last address'",
        "FROM subnet AS s JOIN vnet AS v ON v.id = s.vnet WHERE
           NOT EXISTS (SELECT 1 FROM extent AS e WHERE e.subnet = s.id AND e.first = 0)
           OR NOT EXISTS (SELECT 1 FROM extent AS e WHERE e.subnet = s.id AND e.kind = 'end' AND e.first = s.length)
         ORDER BY s.id")),
    broken("outside-subnet", of_subnet!("e",
        "'the extent at ' || CAST(e.first AS TEXT) || ' lies beyond the end at ' || CAST(s.length AS TEXT)",
        "FROM extent AS e JOIN subnet AS s ON s.id = e.subnet
         WHERE e.first > s.length OR e.next > s.length ORDER BY e.subnet, e.first")),
    mendable("free-neighbours", Severity::Broken, of_subnet!("e",
        "'the free extents at ' || CAST(e.first AS TEXT) || ' and ' || CAST(f.first AS TEXT) || ' are neighbours and should be one'",
        "FROM extent AS e JOIN extent AS f ON f.subnet = e.subnet AND f.first = e.next
         WHERE e.kind = 'free' AND f.kind = 'free' ORDER BY e.subnet, e.first")),
    // Rows that point to nothing.
    broken("orphan-extent", of_subnet!("e",
        "'the extent at ' || CAST(e.first AS TEXT) || ' belongs to something that is not there'",
        "FROM extent AS e WHERE NOT EXISTS (SELECT 1 FROM subnet AS s WHERE s.id = e.subnet)
           OR e.reservation IS NOT NULL AND NOT EXISTS
              (SELECT 1 FROM reservation AS r WHERE r.id = e.reservation AND r.subnet = e.subnet)
           OR e.node IS NOT NULL AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.id = e.node AND n.subnet = e.subnet)
           OR e.block IS NOT NULL AND NOT EXISTS (SELECT 1 FROM block AS b WHERE b.id = e.block AND b.subnet = e.subnet)
         ORDER BY e.subnet, e.first")),
    broken("orphan-subnet", plain!("'subnet/#' || CAST(s.id AS TEXT)", "s.name || ' is in a VNet that is not there'",
        "FROM subnet AS s WHERE NOT EXISTS (SELECT 1 FROM vnet AS v WHERE v.id = s.vnet) ORDER BY s.id")),
    broken("orphan-block", of_subnet!("b",
        "'block ' || CAST(b.id AS TEXT) || ' is of a pool, a node or a subnet that is not there'",
        "FROM block AS b WHERE NOT EXISTS (SELECT 1 FROM pool AS p WHERE p.id = b.pool)
           OR NOT EXISTS (SELECT 1 FROM subnet AS s WHERE s.id = b.subnet)
           OR b.node IS NOT NULL AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.id = b.node)
         ORDER BY b.id")),
    broken("orphan-pool-subnet", plain!("'pool/#' || CAST(m.pool AS TEXT)", "'it or one of its subnets is not there'",
        "FROM pool_subnet AS m WHERE NOT EXISTS (SELECT 1 FROM pool AS p WHERE p.id = m.pool)
           OR NOT EXISTS (SELECT 1 FROM subnet AS s WHERE s.id = m.subnet) ORDER BY m.pool, m.position")),
    // Blocks, reservations and nodes lie where they should.
    broken("block-without-addresses", of_subnet!("b", "'block ' || CAST(b.id AS TEXT) || ' has no extent'",
        "FROM block AS b WHERE NOT EXISTS (SELECT 1 FROM extent AS e WHERE e.block = b.id) ORDER BY b.id")),
    broken("node-without-block", plain!("'node/' || n.name", "'it has no block in its subnet and pool'",
        "FROM node AS n WHERE NOT EXISTS
           (SELECT 1 FROM block AS b WHERE b.node = n.id AND b.subnet = n.subnet AND b.pool = n.pool) ORDER BY n.name")),
    broken("reservation-elsewhere", of_subnet!("r",
        "'reservation ' || r.name || ' is not one extent where it says that it is'",
        "FROM reservation AS r WHERE 1 <> (SELECT COUNT(*) FROM extent AS e WHERE e.reservation = r.id)
           OR NOT EXISTS (SELECT 1 FROM extent AS e WHERE e.reservation = r.id AND e.first = r.first AND e.next = r.next)
         ORDER BY r.id")),
    broken("own-address-unreserved", plain!("'node/' || n.name",
        "'its own address at ' || CAST(CASE f.family WHEN 4 THEN n.own4 ELSE n.own6 END AS TEXT) || ' is not reserved: pods may get it'",
        "FROM node AS n CROSS JOIN (SELECT 4 AS family UNION SELECT 6) AS f
         WHERE CASE f.family WHEN 4 THEN n.own4 ELSE n.own6 END IS NOT NULL AND NOT EXISTS
           (SELECT 1 FROM extent AS e WHERE e.subnet = n.subnet AND e.kind = 'reserved'
              AND e.first <= CASE f.family WHEN 4 THEN n.own4 ELSE n.own6 END
              AND e.next > CASE f.family WHEN 4 THEN n.own4 ELSE n.own6 END)
         ORDER BY n.name, f.family")),
    // 2. An address has one holder, inside its node's block.
    broken("held-outside-block", of_subnet!("a",
        "a.node_name || ' holds ' || CAST(a.at_offset AS TEXT) || ', which is not in its block'",
        "FROM allocation AS a WHERE a.state = 'held' AND NOT EXISTS
           (SELECT 1 FROM block AS b JOIN extent AS e ON e.block = b.id AND e.subnet = a.subnet
            WHERE b.id = a.block AND b.node = a.node AND e.first = a.extent_first AND e.next = a.extent_next
              AND e.first <= a.at_offset AND a.at_offset < e.next)
         ORDER BY a.subnet, a.at_offset")),
    broken("held-by-nobody", of_subnet!("a",
        "CAST(a.at_offset AS TEXT) || ' is held by node ' || a.node_name || ', which is not there'",
        "FROM allocation AS a WHERE a.state = 'held'
           AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.id = a.node AND n.name = a.node_name)
         ORDER BY a.subnet, a.at_offset")),
    broken("two-addresses", plain!("'node/' || MIN(a.node_name)",
        "'its attachment ' || a.network || '/' || a.container_id || '/' || a.if_name || ' holds ' || CAST(COUNT(*) AS TEXT) || ' addresses'",
        "FROM allocation AS a WHERE a.state = 'held'
         GROUP BY a.node, a.network, a.container_id, a.if_name HAVING COUNT(*) > 1
         ORDER BY a.node")),
    broken("released-and-held", of_subnet!("a",
        "CAST(a.at_offset AS TEXT) || ' is released and yet hangs on a block'",
        "FROM allocation AS a WHERE a.state <> 'held' AND (a.node IS NOT NULL OR a.block IS NOT NULL)
         ORDER BY a.subnet, a.at_offset")),
    broken("allocation-outside-subnet", of_subnet!("a",
        "'an allocation at ' || CAST(a.at_offset AS TEXT) || ' lies beyond the end'",
        "FROM allocation AS a LEFT JOIN subnet AS s ON s.id = a.subnet
         WHERE s.id IS NULL OR a.at_offset >= s.length ORDER BY a.subnet, a.at_offset")),
    // What is counted is what is held.
    mendable("usage", Severity::Attention, of_subnet!("wrong",
        "'pool ' || p.name || ' has ' || CAST(-wrong.off AS TEXT) || ' more addresses in use than are counted'",
        concat!("FROM ", off!(), " JOIN pool AS p ON p.id = wrong.pool ORDER BY wrong.subnet, p.name"))),
    // What leaves a block.
    broken("leaving-too-new", of_subnet!("e",
        "'the extent at ' || CAST(e.first AS TEXT) || ' leaves a version of its block that is not there yet'",
        "FROM extent AS e JOIN block AS b ON b.id = e.block WHERE e.leaving > b.version ORDER BY e.subnet, e.first")),
    // 5. Numbers are never given twice.
    mendable("claim-counter", Severity::Broken, plain!("'counter/claim'",
        "'it is at ' || CAST(c.value AS TEXT) || ' and there was a claim ' || CAST(m.last AS TEXT) || ' already: that number would be given again'",
        "FROM counter AS c CROSS JOIN (SELECT MAX(u.claim) AS last FROM
           (SELECT MAX(claim) AS claim FROM node UNION ALL SELECT MAX(claim) FROM allocation
            UNION ALL SELECT MAX(claim) FROM former_token) AS u) AS m
         WHERE c.name = 'claim' AND m.last > c.value")),
    mendable("change-counter", Severity::Broken, plain!("'counter/change'",
        "'it is at ' || CAST(c.value AS TEXT) || ' and there is a version ' || CAST(m.last AS TEXT) || ': that would be given again'",
        "FROM counter AS c CROSS JOIN (SELECT MAX(u.version) AS last FROM
           (SELECT MAX(version) AS version FROM vnet UNION ALL SELECT MAX(version) FROM subnet
            UNION ALL SELECT MAX(version) FROM reservation UNION ALL SELECT MAX(version) FROM pool
            UNION ALL SELECT MAX(version) FROM node) AS u) AS m
         WHERE c.name = 'change' AND m.last > c.value")),
    broken("counter-missing", plain!("'counter/' || w.name", "'it is not there'",
        "FROM (SELECT 'claim' AS name UNION SELECT 'change') AS w
         WHERE NOT EXISTS (SELECT 1 FROM counter AS c WHERE c.name = w.name)")),
    // Strangers are told of by the node whose address it is.
    mendable("stray-conflict", Severity::Attention, of_subnet!("c",
        "'a stranger at ' || CAST(c.at_offset AS TEXT) || ' is noted for a node that has not that address in its block'",
        "FROM conflict AS c WHERE NOT EXISTS
           (SELECT 1 FROM block AS b JOIN extent AS e ON e.block = b.id
            WHERE b.node = c.node AND e.subnet = c.subnet AND e.first <= c.at_offset AND c.at_offset < e.next)
         ORDER BY c.subnet, c.at_offset")),
];
