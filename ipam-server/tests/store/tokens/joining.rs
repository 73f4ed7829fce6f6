//! How a node comes to a token, by a join token, and to another, by the one it has.

use super::{id, joining, make, secret, spec, state, swap, with_nodes};
use crate::support::{World, keep, parse, says};
use ipam_api::{
    token::Secret,
    wire::{Role, TokenSpec, TokenState},
};
use ipam_server::store::{Grant, Swapper, Written};

fn itself(secret: &Secret) -> Swapper {
    Swapper::Itself(id(secret), None)
}

async fn uses_left(world: &World, secret: &Secret) -> Option<u64> {
    world.store.token(&id(secret)).await.unwrap().uses_left
}

#[tokio::test]
async fn a_join_token_makes_nodes_of_its_pool_and_no_more_than_it_may() {
    let world = with_nodes().await;
    let join = make(&world, &TokenSpec { node_token_seconds: Some(3600), ..spec(Role::Join) }, 1).await;
    let first = secret(Role::Node, 10);
    let Written::Created(made) = swap(&world, "n1", &first, &joining(&join, "p")).await.unwrap() else {
        panic!()
    };
    assert_eq!((made.role, made.node, made.pool), (Role::Node, Some(parse("n1")), Some(parse("p"))));
    assert_eq!(made.expires_at, Some(parse("2026-01-02T04:04:05Z")));
    let known = world.store.authenticate(&first).await.unwrap().unwrap();
    assert_eq!(known.grant, Grant::Node(parse("n1"), Some(parse("p"))));
    assert_eq!(uses_left(&world, &join).await, Some(1));
    // The answer was lost: the same again costs nothing.
    assert!(matches!(swap(&world, "n1", &first, &joining(&join, "p")).await, Ok(Written::Updated(_))));
    assert_eq!(uses_left(&world, &join).await, Some(1));

    let before = world.dump().await;
    let other = secret(Role::Node, 11);
    says(swap(&world, "n1", &other, &joining(&join, "p")).await, &["Forbidden", "has a token already"]);
    says(swap(&world, "q1", &other, &joining(&join, "p")).await, &["Forbidden", "in pool q"]);
    says(swap(&world, "n2", &secret(Role::Admin, 11), &joining(&join, "p")).await, &["Invalid /token"]);
    // The token of one node makes no other of it.
    assert!(swap(&world, "n2", &first, &joining(&join, "p")).await.is_err());
    assert_eq!(world.dump().await, before, "a refusal costs no use either");

    swap(&world, "n2", &other, &joining(&join, "p")).await.unwrap();
    assert_eq!(state(&world, &join).await, Some(TokenState::Spent));
    says(
        swap(&world, "n3", &secret(Role::Node, 12), &joining(&join, "p")).await,
        &["Forbidden", "as often as it may"],
    );
    assert!(matches!(swap(&world, "n2", &other, &joining(&join, "p")).await, Ok(Written::Updated(_))));
    world.clock.pass(600);
    assert_eq!(state(&world, &join).await, Some(TokenState::Expired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_do_not_share_a_last_use() {
    let world = with_nodes().await;
    let join = make(&world, &TokenSpec { uses: Some(3), ..spec(Role::Join) }, 1).await;
    let tries: Vec<_> = (0..8_u8)
        .map(|i| {
            let (store, by) = (world.store.clone(), joining(&join, "p"));
            tokio::spawn(async move {
                let secret = Secret::new(Role::Node, [100 + i; 32]);
                store.swap_token(&parse(&format!("new-{i}")), &secret, &by, &keep()).await.is_ok()
            })
        })
        .collect();
    let mut joined = 0;
    for one in tries {
        joined += u32::from(one.await.unwrap());
    }
    assert_eq!((joined, uses_left(&world, &join).await), (3, Some(0)));
}

#[tokio::test]
async fn a_join_token_makes_no_node_of_one_that_is_at_work() {
    let world = with_nodes().await;
    let join = make(&world, &spec(Role::Join), 1).await;
    for state in ["'active'", "'deleting', deletion = 'd1'"] {
        let sql: &'static str = match state {
            "'active'" => "UPDATE node SET state = 'active', boot_id = 'b', boot_seq = 1 WHERE name = 'n1'",
            _ => "UPDATE node SET state = 'deleting', deletion = 'd1' WHERE name = 'n1'",
        };
        assert_eq!(world.sql(sql).await, 1);
        let made = swap(&world, "n1", &secret(Role::Node, 10), &joining(&join, "p")).await;
        says(made, &["Forbidden", "at work already"]);
        assert_eq!(uses_left(&world, &join).await, Some(2));
    }
}

#[tokio::test]
async fn a_node_whose_token_ended_before_its_first_sync_may_join_again() {
    let world = with_nodes().await;
    let join = make(&world, &TokenSpec { node_token_seconds: Some(60), ..spec(Role::Join) }, 1).await;
    let first = secret(Role::Node, 10);
    swap(&world, "n1", &first, &joining(&join, "p")).await.unwrap();
    world.clock.pass(60);
    // The ended one is not taken for one that counts.
    let again = swap(&world, "n1", &first, &joining(&join, "p")).await;
    says(again, &["Exists", "has ended"]);
    swap(&world, "n1", &secret(Role::Node, 11), &joining(&join, "p")).await.unwrap();
    assert_eq!(uses_left(&world, &join).await, Some(0));
    assert_eq!(state(&world, &secret(Role::Node, 11)).await, Some(TokenState::Valid));
}

#[tokio::test]
async fn a_node_changes_its_token_and_the_old_one_ends_within_the_hour() {
    let world = with_nodes().await;
    let join = make(&world, &TokenSpec { node_token_seconds: Some(86_400), ..spec(Role::Join) }, 1).await;
    let (first, second, third) = (secret(Role::Node, 10), secret(Role::Node, 11), secret(Role::Node, 12));
    swap(&world, "n1", &first, &joining(&join, "p")).await.unwrap();
    world.clock.pass(1000);
    let own = Swapper::Itself(id(&first), Some(parse("p")));
    let made = swap(&world, "n1", &second, &own).await.unwrap().into_inner();
    assert_eq!(made.expires_at, Some(parse("2026-01-03T03:20:45Z")), "it lives as long as the first");
    assert_eq!(made.node_token_seconds, Some(86_400), "and so does what comes after it");
    assert_eq!(made.pool, Some(parse("p")));
    for token in [&first, &second] {
        assert_eq!(state(&world, token).await, Some(TokenState::Valid));
    }
    assert_eq!(world.store.token(&id(&first)).await.unwrap().expires_at, Some(parse("2026-01-02T04:20:45Z")));
    // A lost answer is asked for again, by the old token or the new one.
    for by in [itself(&first), itself(&second)] {
        assert!(matches!(swap(&world, "n1", &second, &by).await, Ok(Written::Updated(_))));
    }
    world.clock.pass(3599);
    assert_eq!(state(&world, &first).await, Some(TokenState::Valid));
    world.clock.pass(1);
    assert_eq!(state(&world, &first).await, Some(TokenState::Expired));
    assert_eq!(state(&world, &second).await, Some(TokenState::Valid));
    // The node's answer shows the newest; of those that have ended nothing piles up.
    swap(&world, "n1", &third, &itself(&second)).await.unwrap();
    let shown = world.store.node(&parse("n1")).await.unwrap().value.credential.unwrap();
    assert_eq!((shown.id, shown.state), (id(&third), TokenState::Valid));
    says(world.store.token(&id(&first)).await, &["NotFound"]);

    // One that an admin made for so long is renewed for so long.
    let spec = TokenSpec { node: Some(parse("q1")), expires_in_seconds: Some(500), ..spec(Role::Node) };
    let given = make(&world, &spec, 20).await;
    let made = swap(&world, "q1", &secret(Role::Node, 21), &itself(&given)).await.unwrap().into_inner();
    let lives = made.expires_at.unwrap().as_second() - made.created_at.as_second();
    assert_eq!(lives, 500);
}

/// Between the door and the deed a token may be revoked, here or by another replica: then it makes no other.
#[tokio::test]
async fn a_token_that_is_revoked_meanwhile_makes_no_successor() {
    let world = with_nodes().await;
    let token = make(&world, &spec(Role::Node), 1).await;
    let join = make(&world, &spec(Role::Join), 2).await;
    let (by_itself, by_joining) = (itself(&token), joining(&join, "p"));
    assert_eq!(state(&world, &token).await, Some(TokenState::Valid));
    world.store.revoke_token(&id(&token), &keep()).await.unwrap();
    world.store.revoke_token(&id(&join), &keep()).await.unwrap();
    let before = world.dump().await;
    says(swap(&world, "n1", &secret(Role::Node, 10), &by_itself).await, &["Forbidden"]);
    says(swap(&world, "n1", &secret(Role::Node, 10), &by_joining).await, &["Forbidden"]);
    assert_eq!(world.dump().await, before);
    let short = make(&world, &TokenSpec { expires_in_seconds: Some(5), ..spec(Role::Node) }, 3).await;
    world.clock.pass(5);
    says(swap(&world, "n1", &secret(Role::Node, 11), &itself(&short)).await, &["Forbidden"]);
    // Nor does one node's token make another's.
    let other = make(&world, &TokenSpec { node: Some(parse("q1")), ..spec(Role::Node) }, 4).await;
    says(swap(&world, "n1", &secret(Role::Node, 11), &itself(&other)).await, &["Forbidden"]);
}
