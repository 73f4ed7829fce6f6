//! Everything that can be found is found, where constraints are off; what is repaired is repaired without risk.

use crate::{
    filled::fill,
    support::{World, dry, keep, page, parse},
};
use ipam_api::wire::{Finding, Severity};
use ipam_server::store::{EventFilter, Store};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeSet;
use testdb::{Make, Raw};

const HOUR: i64 = 3600;

/// What is done to a filled database, how many seconds later it is looked at, and what is found then.
const CASES: &[(&str, i64, &[&str])] = &[
    ("gap", 0, &["DELETE FROM extent WHERE subnet = 2 AND kind = 'free'"]),
    ("overlap", 0, &["INSERT INTO extent (subnet, first, next, kind) VALUES (2, 100, 101, 'free')"]),
    ("untiled-end", 0, &["UPDATE subnet SET length = length - 1 WHERE id = 2"]),
    ("outside-subnet", 0, &["UPDATE subnet SET length = length - 1 WHERE id = 2"]),
    ("wrong-length", 0, &["UPDATE subnet SET length = length - 1 WHERE id = 2"]),
    ("free-neighbours", 0, FREE_NEIGHBOURS),
    ("orphan-extent", 0, &["UPDATE extent SET block = 999 WHERE block = (SELECT MAX(id) FROM block)"]),
    ("orphan-subnet", 0, &["UPDATE subnet SET vnet = 99 WHERE id = 2"]),
    ("orphan-block", 0, &["UPDATE block SET pool = 99 WHERE node IS NULL"]),
    ("orphan-pool-subnet", 0, &["UPDATE pool_subnet SET subnet = 99"]),
    ("block-without-addresses", 0, &["INSERT INTO block (id, pool, subnet, version) VALUES (900, 1, 1, 1)"]),
    ("node-without-block", 0, &["UPDATE block SET node = NULL WHERE node = 2"]),
    ("reservation-elsewhere", 0, &["UPDATE reservation SET next = next + 1 WHERE name = 'vms'"]),
    ("own-address-unreserved", 0, &["UPDATE node SET own4 = 200 WHERE name = 'n2'"]),
    (
        "held-outside-block",
        0,
        &[
            "UPDATE allocation SET at_offset = 200, extent_first = 200, extent_next = 201 WHERE container_id = 's1'",
        ],
    ),
    ("held-by-nobody", 0, &["UPDATE allocation SET node = 99 WHERE container_id = 's1'"]),
    (
        "two-addresses",
        0,
        &[
            "DROP INDEX allocation_attachment",
            "UPDATE allocation SET container_id = 'c1' WHERE container_id = 'c2'",
        ],
    ),
    ("released-and-held", 0, &["UPDATE allocation SET state = 'released' WHERE container_id = 's1'"]),
    ("allocation-outside-subnet", 0, &["UPDATE allocation SET at_offset = 70000 WHERE state = 'released'"]),
    ("leaving-too-new", 0, &["UPDATE block SET version = 1 WHERE node = 1"]),
    ("claim-counter", 0, &["UPDATE counter SET value = 1 WHERE name = 'claim'"]),
    ("change-counter", 0, &["UPDATE counter SET value = 1 WHERE name = 'change'"]),
    ("usage", 0, &["UPDATE usage SET used = used + 1"]),
    ("usage", 0, &["DELETE FROM usage"]),
    ("counter-missing", 0, &["DELETE FROM counter WHERE name = 'change'"]),
    ("stray-conflict", 0, &["UPDATE conflict SET at_offset = 200"]),
    ("subnet-overlap", 0, &["UPDATE subnet SET cidr4 = '10.0.0.128/25' WHERE id = 2"]),
    ("outside-vnet", 0, &["UPDATE subnet SET cidr4 = '192.168.1.0/24' WHERE id = 2"]),
    ("unreadable-cidr", 0, &["UPDATE subnet SET cidr4 = '10.0.1' WHERE id = 2"]),
    ("refused-addresses", 0, &["UPDATE last_sync SET refused = 1"]),
    ("never-synced", 2 * HOUR, &["DELETE FROM last_sync"]),
    ("silent-node", 8 * 24 * HOUR, &[]),
    ("unsynced-boot", 2 * HOUR, &["UPDATE node SET boot_seq = 2 WHERE name = 'n1'"]),
    ("old-block", 700, &[]),
    ("held-unlisted", 0, &["UPDATE last_sync SET live = 1"]),
    ("held-by-former-claim", 0, &["UPDATE allocation SET boot_seq = 0 WHERE container_id = 'c1'"]),
    ("waits-for-end", 25 * HOUR, &["UPDATE node SET state = 'deleting', deletion = 'd' WHERE name = 'n1'"]),
    ("expired-token", 0, EXPIRED),
    ("token-of-nobody", 25 * HOUR, &["UPDATE token SET node = 'nobody' WHERE role = 'node'"]),
];

const FREE_NEIGHBOURS: &[&str] = &[
    "UPDATE extent SET next = 100 WHERE subnet = 2 AND kind = 'free'",
    "INSERT INTO extent (subnet, first, next, kind) VALUES (2, 100, 255, 'free')",
];
const EXPIRED: &[&str] = &["UPDATE token SET expires_at = 1"];

async fn filled() -> World {
    let world = World::new().await;
    fill(&world.store).await;
    world
}

/// A connection to which no constraint applies that can be switched off.
async fn unchecked(world: &World) -> Raw {
    match Make::wanted() {
        Make::Sqlite => {
            let mut raw = world.connection().await;
            raw.execute("PRAGMA foreign_keys = OFF").await.unwrap();
            raw.execute("PRAGMA ignore_check_constraints = ON").await.unwrap();
            raw
        }
        Make::Postgres => {
            let url = world.database.url().replace("user=ipam", "user=postgres");
            let mut raw = Raw::Postgres(PgConnection::connect(&url).await.unwrap());
            raw.execute("SET session_replication_role = replica").await.unwrap();
            raw.execute("ALTER TABLE allocation DROP CONSTRAINT allocation_check").await.unwrap();
            raw
        }
    }
}

fn codes(findings: &[Finding]) -> BTreeSet<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[tokio::test]
async fn whatever_is_looked_for_is_found() {
    let mut shown = BTreeSet::new();
    for (code, seconds, corruption) in CASES {
        let world = filled().await;
        assert_eq!(world.store.consistency().await.unwrap().findings, [], "{code}: before");
        let mut raw = unchecked(&world).await;
        for sql in *corruption {
            raw.execute(sql).await.unwrap_or_else(|error| panic!("{code}: {error}"));
        }
        world.clock.pass(*seconds);
        let findings = world.store.consistency().await.unwrap().findings;
        assert!(codes(&findings).contains(code), "{code}: {findings:#?}");
        for finding in &findings {
            assert!(finding.object.contains('/') && !finding.detail.is_empty(), "{finding:?}");
            assert!(finding.cure.len() > 20, "{finding:?}");
        }
        shown.insert(*code);
    }
    assert_eq!(shown, Store::finding_codes().into_iter().collect(), "a check that no case shows");
}

/// On SQLite the file itself is looked at, on PostgreSQL what was switched off.
#[tokio::test]
async fn the_database_says_what_it_lacks_itself() {
    let world = filled().await;
    let url = parse(&world.database.url());
    let now = ipam_server::clock::Clock::now(&*world.clock);
    let sound = Store::diagnose(&url, now).await.unwrap();
    let broken: Vec<_> =
        sound.findings.iter().filter(|finding| finding.severity == Severity::Broken).collect();
    match Make::wanted() {
        Make::Sqlite => assert!(broken.is_empty(), "{broken:?}"),
        // Clusters of tests need not outlive a power cut, and say so.
        Make::Postgres => {
            assert!(broken.iter().all(|finding| finding.code == "unsafe-setting"), "{broken:?}");
        }
    }
    let mut raw = unchecked(&world).await;
    let (sql, code) = match Make::wanted() {
        Make::Sqlite => ("UPDATE node SET pool = 99 WHERE name = 'n1'", "broken-reference"),
        Make::Postgres => ("ALTER TABLE extent DISABLE TRIGGER ALL", "switched-off"),
    };
    raw.execute(sql).await.unwrap();
    let findings = Store::diagnose(&url, now).await.unwrap().findings;
    assert!(codes(&findings).contains(code), "{findings:#?}");
}

#[tokio::test]
async fn a_repair_does_what_is_safe_and_says_so() {
    let world = filled().await;
    let mut raw = unchecked(&world).await;
    let others = [
        "UPDATE counter SET value = 1",
        "UPDATE conflict SET at_offset = 200",
        "UPDATE usage SET used = used + 1",
    ];
    for sql in FREE_NEIGHBOURS.iter().chain(EXPIRED).chain(&others) {
        raw.execute(sql).await.unwrap();
    }
    // Nobody can say which of these is true, so it stays.
    raw.execute("UPDATE allocation SET boot_seq = 0 WHERE container_id = 'c1'").await.unwrap();
    let before = world.dump().await;
    let tried = world.store.repair(&dry()).await.unwrap();
    assert_eq!(world.dump().await, before, "a dry run changed something");
    let done = world.store.repair(&keep()).await.unwrap();
    assert_eq!(done, tried);
    let repaired =
        ["change-counter", "claim-counter", "expired-token", "free-neighbours", "stray-conflict", "usage"];
    assert_eq!(codes(&done.repaired), BTreeSet::from(repaired));
    assert_eq!(codes(&done.findings), BTreeSet::from(["held-by-former-claim"]));
    world.check().await;
    let filter = EventFilter { subject: Some("service/ledger".to_owned()), ..EventFilter::default() };
    let events = world.store.events(&filter, &page()).await.unwrap().items;
    assert_eq!(events.len(), 1);
    let again = world.store.repair(&keep()).await.unwrap();
    assert_eq!(again.repaired, []);
    assert_eq!(world.store.events(&filter, &page()).await.unwrap().items.len(), 1, "nothing was done");
    // A node whose token is gone by that still hears of the end of its claim.
    assert_eq!(world.number("SELECT COUNT(*) FROM former_token WHERE node = 'n1'").await, 1);
}
