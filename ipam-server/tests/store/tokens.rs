//! Tokens: whose they are, how long they count, and what of them is kept.

#[path = "tokens/joining.rs"]
mod joining;

use crate::support::{World, dry, keep, node, page, parse, pool, says};
use ipam_api::{
    names::TokenId,
    token::Secret,
    wire::{Role, SyncRequest, Token, TokenSpec, TokenState},
};
use ipam_server::store::{Actor, Change, Grant, NodeCall, StoreError, Swapper, VmState, Written};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

fn spec(role: Role) -> TokenSpec {
    TokenSpec {
        name: "a test".to_owned(),
        role,
        node: (role == Role::Node).then(|| parse("n1")),
        pool: (role == Role::Join).then(|| parse("p")),
        uses: (role == Role::Join).then_some(2),
        expires_in_seconds: (role == Role::Join).then_some(600),
        node_token_seconds: None,
    }
}

fn secret(role: Role, byte: u8) -> Secret {
    Secret::new(role, [byte; 32])
}

fn id(secret: &Secret) -> TokenId {
    secret.hash().id().unwrap()
}

async fn make(world: &World, spec: &TokenSpec, byte: u8) -> Secret {
    let secret = secret(spec.role, byte);
    world.store.create_token(spec, &secret, &keep()).await.unwrap();
    secret
}

async fn state(world: &World, secret: &Secret) -> Option<TokenState> {
    world.store.authenticate(secret).await.unwrap().map(|known| known.state)
}

/// With pools `p` and `q` and the registered nodes `n1` of `p` and `q1` of `q`.
async fn with_nodes() -> World {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    for (name, address, pool_name) in [("n1", "10.0.0.200", "p"), ("q1", "10.0.0.201", "q")] {
        world.store.put_pool(&parse(pool_name), &pool(&["v/a"], 8, 3), &keep()).await.unwrap();
        world.store.put_node(&parse(name), &node(pool_name, &[address]), &keep()).await.unwrap();
    }
    world
}

async fn swap(
    world: &World,
    node: &str,
    secret: &Secret,
    by: &Swapper,
) -> Result<Written<Token>, StoreError> {
    world.store.swap_token(&parse(node), secret, by, &keep()).await
}

fn joining(secret: &Secret, pool: &str) -> Swapper {
    Swapper::Joining(id(secret), parse(pool))
}

#[tokio::test]
async fn a_token_is_known_by_all_of_it() {
    let world = World::new().await;
    let grants = [
        (Role::Admin, Grant::Admin),
        (Role::Planner, Grant::Planner),
        (Role::Viewer, Grant::Viewer),
        (Role::Node, Grant::Node(parse("n1"), None)),
        (Role::Join, Grant::Join(parse("p"))),
    ];
    for (byte, (role, grant)) in (1..).zip(grants) {
        let secret = make(&world, &spec(role), byte).await;
        let known = world.store.authenticate(&secret).await.unwrap().unwrap();
        assert_eq!((known.id, known.grant, known.state), (id(&secret), grant, TokenState::Valid));
        // Another role before the same bits, and other bits behind the same role.
        for other in Role::ALL.into_iter().filter(|other| *other != role) {
            assert_eq!(state(&world, &Secret::new(other, [byte; 32])).await, None);
        }
        assert_eq!(state(&world, &Secret::new(role, [byte + 100; 32])).await, None);
    }
    // An id that leads to another hash: the id is found and the whole hash does not fit.
    let secret = secret(Role::Admin, 1);
    let other = "0".repeat(48);
    let sql = format!("UPDATE token SET hash = substr(hash, 1, 16) || '{other}' WHERE role = 'admin'");
    assert_eq!(world.sql(&sql).await, 1);
    world.store.revoke_token(&id(&Secret::new(Role::Viewer, [3; 32])), &keep()).await.unwrap();
    assert_eq!(state(&world, &secret).await, None);
}

#[tokio::test]
async fn it_counts_until_its_time_is_over() {
    let world = World::new().await;
    let token = make(&world, &TokenSpec { expires_in_seconds: Some(60), ..spec(Role::Admin) }, 1).await;
    let forever = make(&world, &spec(Role::Admin), 2).await;
    assert!(world.store.has_admin().await.unwrap());
    world.clock.pass(59);
    assert_eq!(state(&world, &token).await, Some(TokenState::Valid));
    // What is remembered of it does not outlive it.
    world.clock.pass(1);
    assert_eq!(state(&world, &token).await, Some(TokenState::Expired));
    assert_eq!(world.store.token(&id(&token)).await.unwrap().state, TokenState::Expired);
    world.clock.pass(1_000_000_000);
    assert_eq!(state(&world, &forever).await, Some(TokenState::Valid));
    world.store.revoke_token(&id(&forever), &keep()).await.unwrap();
    assert!(!world.store.has_admin().await.unwrap(), "an expired one is no admin");
}

#[tokio::test]
async fn a_revoked_token_counts_no_more_at_once() {
    let world = World::new().await;
    let token = make(&world, &spec(Role::Admin), 1).await;
    let tokens = || async { world.store.tokens(&page()).await.unwrap().items };
    assert_eq!(state(&world, &token).await, Some(TokenState::Valid));
    world.store.revoke_token(&id(&token), &dry()).await.unwrap();
    assert_eq!(state(&world, &token).await, Some(TokenState::Valid));
    assert_eq!(tokens().await.len(), 1);
    world.store.revoke_token(&id(&token), &keep()).await.unwrap();
    assert_eq!(state(&world, &token).await, None);
    assert_eq!(tokens().await, []);
    says(world.store.revoke_token(&id(&token), &keep()).await, &["NotFound"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_asks_after_a_revocation_is_not_let_in_whoever_asks_beside_it() {
    let world = World::new().await;
    for byte in 1..40 {
        let token = make(&world, &spec(Role::Viewer), byte).await;
        let revoked = Arc::new(AtomicBool::new(false));
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let (store, token, revoked) = (world.store.clone(), token.clone(), Arc::clone(&revoked));
                tokio::spawn(async move {
                    let (mut asked, mut known) = (0, 0);
                    loop {
                        let after = revoked.load(Ordering::SeqCst);
                        let found = store.authenticate(&token).await.unwrap();
                        asked += 1;
                        known += u32::from(found.is_some());
                        if after {
                            assert_eq!(found, None, "it was revoked before it was asked for");
                            return (asked, known);
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        world.store.revoke_token(&id(&token), &keep()).await.unwrap();
        revoked.store(true, Ordering::SeqCst);
        for asker in askers {
            asker.await.unwrap();
        }
    }
}

#[tokio::test]
async fn its_last_use_is_written_down_later() {
    let mut world = World::new().await;
    let token = make(&world, &spec(Role::Viewer), 1).await;
    let idle = make(&world, &spec(Role::Viewer), 2).await;
    let short = make(&world, &TokenSpec { expires_in_seconds: Some(1), ..spec(Role::Viewer) }, 3).await;
    let gone = make(&world, &spec(Role::Viewer), 4).await;
    let last = async |world: &World, secret| world.store.token(&id(secret)).await.unwrap().last_used_at;
    let before = world.dump().await;
    world.store.note_uses().await.unwrap();
    assert_eq!(world.dump().await, before);
    world.clock.pass(5);
    state(&world, &token).await;
    state(&world, &gone).await;
    assert_eq!(state(&world, &short).await, Some(TokenState::Expired));
    assert_eq!(last(&world, &token).await, None, "no request waits for a write");
    world.store.revoke_token(&id(&gone), &keep()).await.unwrap();
    world.store.note_uses().await.unwrap();
    assert_eq!(last(&world, &token).await, Some(parse("2026-01-02T03:04:10Z")));
    assert_eq!(last(&world, &idle).await, None);
    assert!(
        last(&world, &short).await.is_some(),
        "which token is shown is of interest when it counts no more"
    );
    world.clock.pass(5);
    world.store.note_uses().await.unwrap();
    assert_eq!(last(&world, &token).await, Some(parse("2026-01-02T03:04:10Z")));
    state(&world, &token).await;
    // A service that ends writes down what it knows.
    world.reopen().await;
    assert_eq!(last(&world, &token).await, Some(parse("2026-01-02T03:04:15Z")));
}

#[tokio::test]
async fn fields_go_with_their_roles() {
    let world = World::new().await;
    let mut byte = 0_u8;
    let mut taken = 0;
    for role in Role::ALL {
        for given in 0..32_u8 {
            let has = |bit: u8| given & 1 << bit != 0;
            let spec = TokenSpec {
                name: "x".to_owned(),
                role,
                node: has(0).then(|| parse("n1")),
                pool: has(1).then(|| parse("p")),
                uses: has(2).then_some(1),
                expires_in_seconds: has(3).then_some(60),
                node_token_seconds: has(4).then_some(60),
            };
            let (node, join) = (role == Role::Node, role == Role::Join);
            let mut wrong = Vec::new();
            for (field, is_wrong) in [
                ("/node", has(0) != node),
                ("/pool", (has(1) && !node && !join) || (join && !has(1))),
                ("/uses", has(2) != join),
                ("/expiresInSeconds", join && !has(3)),
                ("/nodeTokenSeconds", has(4) && !join),
            ] {
                if is_wrong {
                    wrong.push(field);
                }
            }
            byte = byte.wrapping_add(1);
            let secret = Secret::new(role, [byte; 32]);
            match world.store.create_token(&spec, &secret, &keep()).await {
                Ok(_) => {
                    assert_eq!(wrong, [""; 0], "{spec:?} was taken");
                    taken += 1;
                }
                Err(StoreError::Invalid(errors)) => {
                    let mut named: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
                    named.sort_unstable();
                    wrong.sort_unstable();
                    assert_eq!(named, wrong, "{spec:?}");
                }
                Err(other) => panic!("{spec:?}: {other}"),
            }
        }
    }
    assert_eq!(
        taken,
        3 * 2 + 4 + 2,
        "people: with and without an end; nodes: a pool or none as well; join: nodeTokenSeconds"
    );
}

#[tokio::test]
async fn names_and_numbers_have_limits() {
    let world = World::new().await;
    let long = "x".repeat(64);
    let named = |name: &str| TokenSpec { name: name.to_owned(), ..spec(Role::Viewer) };
    let lives = |seconds| TokenSpec { expires_in_seconds: Some(seconds), ..spec(Role::Viewer) };
    let used = |uses| TokenSpec { uses: Some(uses), ..spec(Role::Join) };
    let renewed = |seconds| TokenSpec { node_token_seconds: Some(seconds), ..spec(Role::Join) };
    let good = [
        named("a"),
        named(&long),
        named("Zoë 1"),
        lives(1),
        lives(315_360_000),
        used(1),
        used(1_000_000),
        renewed(1),
        renewed(315_360_000),
    ];
    for (byte, spec) in (1..).zip(&good) {
        make(&world, spec, byte).await;
    }
    let before = world.dump().await;
    let wrong = [
        (named(""), "/name"),
        (named(&format!("{long}x")), "/name"),
        (named("a\nb"), "/name"),
        (named("a\u{7f}"), "/name"),
        // How events name those who are no token's owner.
        (named("node:n1"), "/name"),
        (named("uid:0"), "/name"),
        (named("anonymous"), "/name"),
        (named("service"), "/name"),
        (lives(0), "/expiresInSeconds"),
        (lives(315_360_001), "/expiresInSeconds"),
        (lives(u64::MAX), "/expiresInSeconds"),
        (used(0), "/uses"),
        (used(1_000_001), "/uses"),
        (used(u64::MAX), "/uses"),
        (renewed(0), "/nodeTokenSeconds"),
        (renewed(u64::MAX), "/nodeTokenSeconds"),
    ];
    for (spec, pointer) in &wrong {
        let made = world.store.create_token(spec, &secret(spec.role, 99), &keep()).await;
        says(made, &[&format!("Invalid {pointer}")]);
    }
    says(world.store.create_token(&named("a"), &secret(Role::Viewer, 1), &keep()).await, &["Exists"]);
    world.store.create_token(&named("a"), &secret(Role::Viewer, 98), &dry()).await.unwrap();
    assert_eq!(world.dump().await, before);
    assert_eq!(state(&world, &secret(Role::Viewer, 98)).await, None);
}

#[tokio::test]
async fn the_tokens_of_a_node_end_with_it() {
    for end in ["deleted", "gone", "replaced", "confirmed"] {
        let world = with_nodes().await;
        let (one, two) = (make(&world, &spec(Role::Node), 1).await, make(&world, &spec(Role::Node), 2).await);
        let other = make(&world, &TokenSpec { node: Some(parse("q1")), ..spec(Role::Node) }, 3).await;
        for token in [&one, &two, &other] {
            assert_eq!(state(&world, token).await, Some(TokenState::Valid));
        }
        let name = parse("n1");
        let store = &world.store;
        match end {
            "deleted" => drop(store.delete_node(&name, VmState::Unknown, &keep()).await.unwrap()),
            "gone" => drop(store.delete_node(&name, VmState::Gone, &keep()).await.unwrap()),
            "replaced" => {
                let mut new = node("p", &[]);
                new.uid = Some("u2".to_owned());
                new.replace = true;
                store.put_node(&name, &new, &dry()).await.unwrap();
                assert_eq!(state(&world, &one).await, Some(TokenState::Valid), "only tried");
                store.put_node(&name, &new, &keep()).await.unwrap();
            }
            _ => {
                let node = store.node(&name).await.unwrap();
                let call = |seq: u64| NodeCall {
                    node: name.clone(),
                    stamp: Some(parse(&format!("claim={}, boot=1, seq={seq}, block=1", node.claim))),
                };
                let journal = |seq: u64, deletion: Option<String>| -> SyncRequest {
                    let json = serde_json::json!({"asOfSeq": seq, "entries": [], "deletion": deletion});
                    serde_json::from_value(json).unwrap()
                };
                store.sync(&call(10), &journal(10, None), &Actor::default()).await.unwrap();
                store.delete_node(&name, VmState::Unknown, &keep()).await.unwrap();
                // It needs its token to confirm.
                assert_eq!(state(&world, &one).await, Some(TokenState::Valid));
                let deletion = store.node(&name).await.unwrap().deletion.clone();
                store.sync(&call(20), &journal(20, deletion), &Actor::default()).await.unwrap();
            }
        }
        for token in [&one, &two] {
            assert_eq!(state(&world, token).await, None, "{end}");
            // But whose they were is known, so that a VM that lives on hears that its claim has ended.
            assert_eq!(world.store.former_node(token).await.unwrap(), Some(parse("n1")), "{end}");
        }
        assert_eq!(world.store.former_node(&other).await.unwrap(), None, "{end}");
        assert_eq!(state(&world, &other).await, Some(TokenState::Valid), "{end}");
    }
}

#[tokio::test]
async fn all_tokens_of_a_node_end_at_once_and_its_claim_stays() {
    let world = with_nodes().await;
    let (one, two) = (make(&world, &spec(Role::Node), 1).await, make(&world, &spec(Role::Node), 2).await);
    let name = parse("n1");
    world.store.revoke_node(&name, &dry()).await.unwrap();
    assert_eq!(state(&world, &one).await, Some(TokenState::Valid), "only tried");
    world.store.revoke_node(&name, &keep()).await.unwrap();
    for token in [&one, &two] {
        assert_eq!(state(&world, token).await, None);
        assert_eq!(world.store.former_node(token).await.unwrap(), None, "its claim lives: an outage to it");
    }
    world.store.delete_node(&name, VmState::Gone, &keep()).await.unwrap();
    for token in [&one, &two] {
        assert_eq!(world.store.former_node(token).await.unwrap(), Some(parse("n1")), "now it has ended");
    }
    // A year later nobody is waited for.
    world.clock.pass(366 * 86_400);
    world.prune(400).await;
    assert_eq!(world.store.former_node(&one).await.unwrap(), None);
}

#[tokio::test]
async fn the_file_has_hashes_only() {
    let world = with_nodes().await;
    let mut secrets = Vec::new();
    for (byte, role) in (1..).zip(Role::ALL) {
        secrets.push(make(&world, &spec(role), byte).await);
    }
    let own = secret(Role::Node, 10);
    swap(&world, "n2", &own, &joining(&secrets[4], "p")).await.unwrap();
    let change = Change { by: Actor { token: Some(id(&own)), ..Actor::default() }, ..keep() };
    let first = secret(Role::Admin, 11);
    world.store.bootstrap(&first, &change).await.unwrap();
    secrets.extend([own, first]);
    for secret in &secrets {
        state(&world, secret).await;
    }
    world.store.note_uses().await.unwrap();
    let files: Vec<Vec<u8>> = fs::read_dir(world.database.log_directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| fs::read(path).unwrap())
        .collect();
    let occurs =
        |text: &str| files.iter().any(|file| file.windows(text.len()).any(|at| at == text.as_bytes()));
    for secret in &secrets {
        assert!(occurs(secret.hash().as_str()), "the search finds what is there");
        // Nor a good part of it.
        assert!(!occurs(secret.expose()) && !occurs(&secret.expose()[20..]), "{secret:?}");
    }
}

#[tokio::test]
async fn the_first_admins_token_is_kept_once() {
    let world = World::new().await;
    let first = secret(Role::Admin, 1);
    assert!(matches!(world.store.bootstrap(&first, &keep()).await, Ok(Written::Created(_))));
    assert!(matches!(world.store.bootstrap(&first, &keep()).await, Ok(Written::Updated(_))));
    assert_eq!(world.store.tokens(&page()).await.unwrap().items.len(), 1);
    // What was revoked does not come back by a file that was left.
    world.store.revoke_token(&id(&first), &keep()).await.unwrap();
    says(world.store.bootstrap(&first, &keep()).await, &["Exists", "revoked"]);
    assert_eq!(state(&world, &first).await, None);
}

#[tokio::test]
async fn the_database_refuses_nonsense() {
    let world = World::new().await;
    for (byte, role) in (1..).zip(Role::ALL) {
        make(&world, &spec(role), byte).await;
    }
    let before = world.dump().await;
    let mut connection = world.connection().await;
    for sql in [
        "UPDATE token SET role = 'root' WHERE role = 'admin'",
        "UPDATE token SET role = 'admin' WHERE role = 'node'",
        "UPDATE token SET role = 'node' WHERE role = 'admin'",
        "UPDATE token SET role = 'viewer' WHERE role = 'join'",
        "UPDATE token SET node = NULL WHERE role = 'node'",
        "UPDATE token SET node = 'n1' WHERE role = 'viewer'",
        "UPDATE token SET pool = 'p' WHERE role = 'admin'",
        "UPDATE token SET pool = NULL WHERE role = 'join'",
        "UPDATE token SET expires_at = NULL WHERE role = 'join'",
        "UPDATE token SET uses_left = NULL WHERE role = 'join'",
        "UPDATE token SET uses_left = -1 WHERE role = 'join'",
        "UPDATE token SET uses_left = 1 WHERE role = 'node'",
        "UPDATE token SET node_token_seconds = 0 WHERE role = 'join'",
        "UPDATE token SET node_token_seconds = 1 WHERE role = 'planner'",
        "UPDATE token SET hash = (SELECT hash FROM token WHERE role = 'admin')",
        "UPDATE token SET id = (SELECT id FROM token WHERE role = 'admin')",
        "UPDATE token SET hash = NULL WHERE role = 'admin'",
        "UPDATE token SET created_by = NULL WHERE role = 'admin'",
        "UPDATE event SET action = 'look'",
        "UPDATE event SET was = NULL, became = NULL",
        "UPDATE event SET actor = NULL",
        "UPDATE event SET source = NULL",
        "UPDATE event SET subject = NULL",
        "UPDATE event SET id = 1",
    ] {
        let refused = connection.execute(sql).await.unwrap_err();
        assert!(refused.to_string().contains("constraint"), "{sql}: {refused}");
    }
    assert_eq!(world.dump().await, before);
}
