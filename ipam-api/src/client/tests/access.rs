//! Tokens, credentials, events.

use super::*;
use crate::{
    token::Secret,
    wire::{Role, TokenSpec, TokenState},
};

const TOKEN: &str = r#""id":"0123456789abcdef","name":"alice","role":"planner","state":"valid",
    "createdAt":"2026-01-02T03:04:05Z","createdBy":"anonymous","expiresAt":"2026-04-02T03:04:05Z""#;

fn spec() -> TokenSpec {
    TokenSpec {
        name: "alice".to_owned(),
        role: Role::Planner,
        node: None,
        pool: None,
        uses: None,
        expires_in_seconds: Some(7_776_000),
        node_token_seconds: None,
    }
}

#[tokio::test]
async fn a_token_is_made_shown_once_and_revoked() {
    let (client, requests) = service(vec![
        answer("201 Created", "", &format!(r#"{{{TOKEN},"secret":"ipam_planner_x"}}"#)),
        answer("200 OK", "", &format!(r#"{{"items":[{{{TOKEN}}}]}}"#)),
        answer("200 OK", "etag: \"1\"\r\n", &format!("{{{TOKEN}}}")),
        answer("204 No Content", "", ""),
    ]);
    let made = client.create_token(&spec(), &Write::default()).await.unwrap().value;
    assert_eq!(made.secret.as_deref(), Some("ipam_planner_x"));
    assert!(!format!("{made:?}").contains("ipam_planner_x"));
    let request = requests.recv().unwrap();
    assert!(request.starts_with("POST /v1/tokens HTTP"), "{request}");
    assert!(
        request.ends_with(r#"{"name":"alice","role":"planner","expiresInSeconds":7776000}"#),
        "{request}"
    );

    let id = made.token.id;
    assert_eq!(client.tokens(&Page::default()).await.unwrap().value.items[0].id, id);
    assert!(requests.recv().unwrap().starts_with("GET /v1/tokens HTTP"));
    assert_eq!(client.token(&id).await.unwrap().value.state, TokenState::Valid);
    assert!(requests.recv().unwrap().starts_with("GET /v1/tokens/0123456789abcdef HTTP"));
    client.revoke_token(&id, &Write::dry_run()).await.unwrap();
    assert!(requests.recv().unwrap().starts_with("DELETE /v1/tokens/0123456789abcdef?dryRun=true HTTP"));
}

#[tokio::test]
async fn a_nodes_own_token_goes_into_the_body_and_nowhere_else() {
    let (client, requests) = service(vec![
        answer("201 Created", "", &format!("{{{TOKEN}}}")),
        answer(
            "403 Forbidden",
            "",
            r#"{"type":"/problems/forbidden","title":"t","status":403,"detail":"no"}"#,
        ),
    ]);
    let secret = Secret::new(Role::Node, [7; 32]);
    let node = "node-1".parse().unwrap();
    assert!(client.put_credential(&node, &secret).await.unwrap().created());
    let request = requests.recv().unwrap();
    assert!(request.starts_with("PUT /v1/nodes/node-1/credential HTTP"), "{request}");
    assert!(request.ends_with(&format!(r#"{{"token":"{}"}}"#, secret.expose())), "{request}");
    let error = client.put_credential(&node, &secret).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret.expose()));
}

#[tokio::test]
async fn events_are_asked_for_by_what_is_wanted_of_them() {
    let event = r#"{"id":7,"at":"2026-01-02T03:04:05Z","actor":"alice","source":"10.0.0.9:5","action":"update",
        "subject":"pool/workers","before":{"nodes":1},"after":{"nodes":2}}"#;
    let list = answer("200 OK", "", &format!(r#"{{"items":[{event}],"next":"07"}}"#));
    let (client, requests) = service(vec![list.clone(), list]);
    let filter = EventFilter {
        subject: Some("pool/workers".to_owned()),
        actor: Some("al&ce".to_owned()),
        since: Some("2026-01-02T00:00:00Z".parse().unwrap()),
        until: None,
    };
    let page = Page { limit: Some(5), after: Some("06".to_owned()) };
    let events = client.events(&filter, &page).await.unwrap().value;
    assert_eq!((events.items[0].id, events.next.as_deref()), (7, Some("07")));
    let request = requests.recv().unwrap();
    let query = "subject=pool%2Fworkers&actor=al%26ce&since=2026-01-02T00%3A00%3A00Z&limit=5&after=06";
    assert!(request.starts_with(&format!("GET /v1/events?{query} HTTP")), "{request}");
    client.events(&EventFilter::default(), &Page::default()).await.unwrap();
    assert!(requests.recv().unwrap().starts_with("GET /v1/events HTTP"));
}
