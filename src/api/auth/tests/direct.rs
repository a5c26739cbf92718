//! The public port without a token: from which callers, and in which form.

use std::sync::{Arc, Weak};

use super::*;
use crate::api::tests::owned::{Owned, own_user};
use balancer_http::message::Version;

/// The status that a call has on each listener; it may be changed before it is made.
fn statuses(access: &AccessRules, change: impl FnOnce(&mut RequestHead)) -> [u16; 2] {
    let call =
        Call { method: "GET", target: "/limits", fields: &[("Host", "127.0.0.1:8080")], ..Call::default() };
    let mut head = head(&call, BodyLength::Empty);
    change(&mut head);
    [Surface::Public, Surface::Admin].map(|surface| {
        let checked = access.check(&head, surface, &WrongTokens::default(), 1).map(|_| ());
        let page = access.check_page(&head, surface);
        // A page is shown to callers of the API, and on a listener of the API's own to every peer that `allow` lets in.
        assert!(page.is_ok() || checked.is_err(), "{page:?}");
        if surface == Surface::Public {
            assert_eq!(page.is_ok(), checked.is_ok());
        }
        checked.err().map_or(200, |reject| {
            let names_both = reject.detail.contains("admin.token") && reject.detail.contains("admin.listen");
            assert_eq!(names_both, surface == Surface::Public, "{}", reject.detail);
            assert!(!reject.cause.is_empty() && !reject.detail.contains("user 4"), "{reject:?}");
            reject.status()
        })
    })
}

fn set_owner(head: &mut RequestHead, owner: &Arc<Owned>) {
    let owner: Weak<Owned> = Arc::downgrade(owner);
    head.connection = Some(owner);
}

#[test]
fn only_a_process_of_our_own_user_is_answered() {
    let access = AccessRules::new(&admin(), &[]);
    let own = own_user();
    for (owner, status) in [
        (Ok(own), 200),
        (Ok(own + 1), 403),
        (Ok(if own == 0 { 4242 } else { 0 }), 403),
        (Err("it can't be told".to_owned()), 403),
    ] {
        let owned = Arc::new(Owned(owner.clone()));
        assert_eq!(statuses(&access, |head| set_owner(head, &owned)), [status, 200], "{owner:?}");
    }
    assert_eq!(statuses(&access, |head| head.connection = None), [403, 200]);
    // The connection has ended before its owner is asked for.
    assert_eq!(statuses(&access, |head| set_owner(head, &Arc::new(Owned(Ok(own))))), [403, 200]);
}

#[test]
fn what_a_proxy_adds_is_refused_and_the_old_rules_hold_on_a_listener_of_the_apis_own() {
    let access = AccessRules::new(&admin(), &[]);
    for (name, public, own) in [
        ("Forwarded", 403, 403),
        ("Via", 403, 403),
        ("X-Forwarded-For", 403, 403),
        ("X-Real-IP", 403, 403),
        ("X-Forwarded-Proto", 403, 200),
        ("x-forwarded-anything", 403, 200),
        ("X-Original-Forwarded-For", 403, 200),
        ("X-Original-URL", 403, 200),
        ("X-Envoy-External-Address", 403, 200),
        ("CF-Connecting-IP", 403, 200),
        ("cf-ray", 403, 200),
        ("True-Client-IP", 403, 200),
        ("X-Client-IP", 403, 200),
        ("X-Cluster-Client-IP", 403, 200),
        ("X_Forwarded_For", 403, 200),
        ("X_REAL_IP", 403, 200),
        ("X-Forward", 200, 200),
        ("X-Request-Id", 200, 200),
        ("traceparent", 200, 200),
        ("Cfg", 200, 200),
    ] {
        assert_eq!(statuses(&access, |head| head.fields.push(name, b"x")), [public, own], "{name}");
    }
    assert_eq!(statuses(&access, |head| head.version = Version::Http10), [403, 200]);
}

#[test]
fn trusted_proxies_and_whom_they_name_are_no_callers_without_a_token() {
    let trusted = ["127.0.0.9/32".parse().unwrap(), "::1/128".parse().unwrap()];
    let access = AccessRules::new(&admin(), &trusted);
    for (peer, public) in
        [("127.0.0.9:1", 403), ("[::ffff:127.0.0.9]:1", 403), ("[::1]:1", 403), ("127.0.0.8:1", 200)]
    {
        assert_eq!(statuses(&access, |head| head.peer = peer.parse().unwrap()), [public, 200], "{peer}");
    }
    // A header that names loopback, or that leaves the peer as it is.
    for peer in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "127.0.0.9:1"] {
        let proxied = statuses(&access, |head| {
            head.peer = peer.parse().unwrap();
            head.is_proxied = true;
        });
        assert_eq!(proxied, [403, 403], "{peer}");
    }
}

#[test]
fn a_token_opens_nothing_to_a_loopback_that_a_proxy_names_unless_everybody_is_meant() {
    let text = "a-token-of-some-length";
    for (allow, status) in [("127.0.0.0/8", 403), ("0.0.0.0/0", 200)] {
        let admin = config::Admin {
            token: Some(config::Secret::new(text)),
            allow: vec![allow.parse().unwrap()],
            ..admin()
        };
        let access = AccessRules::new(&admin, &[]);
        let bearer = format!("Bearer {text}");
        let call = Call {
            method: "GET",
            target: "/limits",
            fields: &[("Authorization", bearer.as_str())],
            ..Call::default()
        };
        let mut head = head(&call, BodyLength::Empty);
        head.connection = None;
        assert!(
            access.check(&head, Surface::Public, &WrongTokens::default(), 1).is_ok(),
            "the token decides"
        );
        head.is_proxied = true;
        let got = access.check(&head, Surface::Public, &WrongTokens::default(), 1);
        assert_eq!(got.map_or_else(|reject| reject.status(), |_| 200), status, "{allow}");
    }
}

/// Loopback is asked for whatever `allow` says: nothing else can be a process whose owner the kernel knows.
#[test]
fn without_a_token_no_allow_opens_the_public_port_to_the_network() {
    let admin = config::Admin { allow: vec!["0.0.0.0/0".parse().unwrap()], insecure: true, ..admin() };
    let access = AccessRules::new(&admin, &[]);
    for (peer, public) in [("127.0.0.1:1", 200), ("10.0.0.1:1", 403), ("192.0.2.1:1", 403)] {
        assert_eq!(statuses(&access, |head| head.peer = peer.parse().unwrap()), [public, 200], "{peer}");
    }
}
