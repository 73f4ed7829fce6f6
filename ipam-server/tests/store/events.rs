//! Events: one with each deed, in its transaction, and found again.

use crate::support::{World, dry, keep, node, page, parse, pool, says, vnet};
use ipam_api::wire::{Event, Role, TokenSpec};
use ipam_server::store::{Actor, Change, EventFilter, Page, Precondition, VmState};
use jiff::Timestamp;
use testdb::Make;

fn by(name: &str) -> Change {
    Change { by: Actor { name: name.to_owned(), ..Actor::default() }, ..Change::default() }
}

async fn all(world: &World) -> Vec<Event> {
    world.store.events(&EventFilter::default(), &page()).await.unwrap().items
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

#[tokio::test]
async fn the_deed_and_its_event_are_one_transaction() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    // A database that keeps no event of this one keeps no deed either.
    let refuse = match Make::wanted() {
        Make::Sqlite => {
            "CREATE TRIGGER no_event BEFORE INSERT ON event WHEN NEW.subject IN ('pool/p', 'node/n', 'vnet/v')
            BEGIN SELECT RAISE(ABORT, 'no event'); END"
        }
        Make::Postgres => {
            "ALTER TABLE event ADD CHECK (subject NOT IN ('pool/p', 'node/n', 'vnet/v')) NOT VALID"
        }
    };
    world.sql(refuse).await;
    let before = world.dump().await;
    let spec = pool(&["v/a"], 8, 2);
    assert!(world.store.put_pool(&parse("p"), &spec, &keep()).await.is_err());
    assert!(world.store.put_vnet(&parse("v"), &vnet(&["10.0.0.0/8"]), &keep()).await.is_err());
    assert_eq!(world.dump().await, before);
    // The writer goes on.
    world.store.put_pool(&parse("q"), &spec, &keep()).await.unwrap();
    assert!(world.store.put_node(&parse("n"), &node("q", &["10.0.0.200"]), &keep()).await.is_err());
    assert_eq!(all(&world).await.last().unwrap().subject, "pool/q");
    world.check().await;
}

#[tokio::test]
async fn a_try_a_repetition_and_a_refusal_leave_none() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let store = &world.store;
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    store.put_node(&parse("n"), &node("p", &["10.0.0.200"]), &keep()).await.unwrap();
    let before = all(&world).await;
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 3), &dry()).await.unwrap();
    store.delete_node(&parse("n"), VmState::Gone, &dry()).await.unwrap();
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    world.clock.pass(10);
    store.put_node(&parse("n"), &node("p", &["10.0.0.200"]), &keep()).await.unwrap();
    says(store.put_pool(&parse("p"), &pool(&["v/a"], 8, 999), &keep()).await, &["Exhausted"]);
    let absent = Change { precondition: Precondition::Absent, ..keep() };
    says(store.put_pool(&parse("p"), &pool(&["v/a"], 8, 3), &absent).await, &["PreconditionFailed"]);
    assert_eq!(all(&world).await, before);
}

#[tokio::test]
async fn an_event_says_what_was_and_what_became() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let store = &world.store;
    let change = Change {
        by: Actor {
            name: "alice".to_owned(),
            token: Some(parse("0123456789abcdef")),
            source: "192.0.2.1:9".to_owned(),
            request_id: Some("r1".to_owned()),
        },
        ..keep()
    };
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &change).await.unwrap();
    world.clock.pass(60);
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 3), &change).await.unwrap();
    store.delete_pool(&parse("p"), &keep()).await.unwrap();
    let of_pool = EventFilter { subject: Some("pool/p".to_owned()), ..EventFilter::default() };
    let events = store.events(&of_pool, &page()).await.unwrap().items;
    let [made, changed, gone] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((made.actor.as_str(), made.source.as_str()), ("alice", "192.0.2.1:9"));
    assert_eq!((made.token.as_deref(), made.request_id.as_deref()), (Some("0123456789abcdef"), Some("r1")));
    assert_eq!((made.action.as_str(), made.before.is_none()), ("create", true));
    assert_eq!(made.at, "2026-01-02T03:04:05Z".parse().unwrap());
    assert_eq!(changed.at, "2026-01-02T03:05:05Z".parse().unwrap());
    assert_eq!(changed.before, made.after);
    assert_eq!(changed.after.as_ref().unwrap()["nodes"], 3);
    assert_eq!((gone.action.as_str(), gone.after.is_none()), ("delete", true));
    assert_eq!((gone.actor.as_str(), &gone.before), ("service", &changed.after));
}

#[tokio::test]
async fn filters_and_cursors_agree_with_a_plain_reading() {
    let world = World::new().await;
    let store = &world.store;
    let subjects = ["a", "b", "a.b", "a-b", "ab"];
    for i in 0_u8..40 {
        world.clock.pass(30);
        let change = by(["alice", "bob", "node:n"][usize::from(i % 3)]);
        let name = subjects[usize::from(i % 5)];
        if i % 2 == 0 {
            let space = format!("10.{i}.0.0/16");
            store.put_vnet(&parse(name), &vnet(&[&space]), &change).await.unwrap();
        } else {
            let spec = TokenSpec {
                name: name.to_owned(),
                role: Role::Viewer,
                node: None,
                pool: None,
                uses: None,
                expires_in_seconds: None,
                node_token_seconds: None,
            };
            let secret = ipam_api::token::Secret::new(Role::Viewer, [i; 32]);
            store.create_token(&spec, &secret, &change).await.unwrap();
        }
    }
    // A clock that was set back: events stay in the order in which they came.
    world.clock.pass(-600);
    store.put_vnet(&parse("late"), &vnet(&["10.99.0.0/16"]), &by("alice")).await.unwrap();
    let every = all(&world).await;
    assert_eq!(every.len(), 41);
    assert!(every.is_sorted_by(|a, b| a.id < b.id));
    let token = every.iter().find(|event| event.subject.starts_with("token/")).unwrap().subject.clone();
    let some_subjects = [
        None,
        Some("vnet".to_owned()),
        Some("token".to_owned()),
        Some("vnet/a".to_owned()),
        Some(token),
        Some("vnet/none".to_owned()),
        Some("v".to_owned()),
    ];
    let actors = [None, Some("alice".to_owned()), Some("node:n".to_owned()), Some("nobody".to_owned())];
    let times = [None, at("2026-01-02T03:09:05Z"), at("2026-01-02T03:14:04.5Z"), at("2027-01-01T00:00:00Z")];
    for subject in &some_subjects {
        for actor in &actors {
            for since in times {
                for until in times {
                    let filter = EventFilter { subject: subject.clone(), actor: actor.clone(), since, until };
                    let wanted: Vec<&Event> = every.iter().filter(|event| matches(event, &filter)).collect();
                    let mut got = Vec::new();
                    let mut after = None;
                    loop {
                        let listing = store.events(&filter, &Page { limit: 7, after }).await.unwrap();
                        assert!(listing.items.len() <= 7, "{filter:?}");
                        got.extend(listing.items);
                        after = listing.next;
                        if after.is_none() {
                            break;
                        }
                    }
                    assert_eq!(got.iter().collect::<Vec<_>>(), wanted, "{filter:?}");
                }
            }
        }
    }
    let nowhere = Page { limit: 7, after: Some("x".to_owned()) };
    says(store.events(&EventFilter::default(), &nowhere).await, &["Invalid query:after"]);
}

fn matches(event: &Event, filter: &EventFilter) -> bool {
    filter.subject.as_ref().is_none_or(|subject| {
        event.subject == *subject
            || (!subject.contains('/') && event.subject.split('/').next() == Some(subject))
    }) && filter.actor.as_ref().is_none_or(|actor| event.actor == *actor)
        && filter.since.is_none_or(|since| event.at >= since)
        && filter.until.is_none_or(|until| event.at < until)
}

#[tokio::test]
async fn a_number_is_never_given_twice() {
    let world = World::new().await;
    let put = async |name: &str, space: &str| {
        world.store.put_vnet(&parse(name), &vnet(&[space]), &keep()).await.unwrap();
    };
    put("a", "10.0.0.0/16").await;
    put("b", "10.1.0.0/16").await;
    let last = all(&world).await.last().unwrap().id;
    // Whoever prunes old events, even all, does not make a reader's cursor meet others.
    world.sql("DELETE FROM event").await;
    put("c", "10.2.0.0/16").await;
    assert!(all(&world).await[0].id > last);
}
