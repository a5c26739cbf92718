//! Which clients a route refuses.

use serde_json::json;

use super::{named, routed, setup};
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Setup, request};

each_engine! {
    who_is_denied_or_not_allowed_gets_403,
    no_spelling_of_a_path_gets_around_a_route,
    a_backend_gets_the_path_that_its_guards_judged,
    behind_a_trusted_proxy_the_client_is_who_it_names,
}

fn who_is_denied_or_not_allowed_gets_403(engine: Engine) {
    let routes = json!([
        { "path": "/inside", "pool": "default", "allow": ["127.0.0.0/29"], "deny": "127.0.0.3" },
        { "path": "/outside", "pool": "default", "deny": ["127.0.0.2/32", "::1"] },
    ]);
    let (backend, balancer) = routed(engine, routes);
    let rows = [
        ("127.0.0.1", "/inside", 200),
        ("127.0.0.2", "/inside", 200),
        ("127.0.0.3", "/inside", 403),
        ("127.0.0.8", "/inside/x", 403),
        ("127.0.0.2", "/outside", 403),
        ("127.0.0.3", "/outside", 200),
        ("127.0.0.2", "/", 200),
    ];
    for (client, target, status) in rows {
        let answer = balancer.get_from(client, target).expect(status);
        if status == 403 {
            let problem = answer.problem(403);
            assert_eq!(problem["detail"], "this client may not come in here");
            assert_eq!(answer.field("ratelimit"), None);
        }
    }
    assert_eq!(backend.seen().len(), 4);
}

fn no_spelling_of_a_path_gets_around_a_route(engine: Engine) {
    let routes = json!([
        { "path": "/admin", "pool": "default", "deny": "127.0.0.2" },
        named("public", json!("a.test"), "/admin/public"),
    ]);
    let (backend, balancer) = routed(engine, routes);
    let rows = [
        ("/admin", 403),
        ("/admin/", 403),
        ("//admin", 403),
        ("/%61dmin", 403),
        ("/x/../admin/y", 403),
        ("/x/..%2fadmin", 403),
        ("/x/..%5cadmin", 403),
        ("/x/..;/admin", 403),
        ("/ADMIN", 403),
        ("/Admin/x", 403),
        ("/admin;v=1", 403),
        ("/admin%2fx", 403),
        ("/admin%00x", 403),
        ("/%2561dmin", 403),
        ("/admin/public", 403),
        // More readings than are looked at.
        ("/a;%3B%2f%5c./%00%2500/..;", 400),
        ("/administrator", 200),
        ("/x/admin", 200),
        ("/admin/../x", 200),
        ("/x?/admin", 200),
    ];
    for (target, status) in rows {
        let mut conn = Conn::from("127.0.0.2".parse().expect("an address"), balancer.address);
        let answer = conn.ask("GET", target, &[], b"");
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
    }
    assert_eq!(backend.seen().len(), 4);
    // At its own host a more specific route takes the request.
    let mut conn = Conn::from("127.0.0.2".parse().expect("an address"), balancer.address);
    assert_eq!(conn.ask("GET", "/admin/public/x", &[("Host", "a.test")], b"").expect(200).text(), "public");
}

fn a_backend_gets_the_path_that_its_guards_judged(engine: Engine) {
    let routes = json!([{ "path": "/admin", "pool": "default", "deny": "127.0.0.1" }]);
    let (backend, balancer) = routed(engine, routes);
    let rows = [
        ("/admin/../x", "/x"),
        ("/admin/%2e%2E/x?a=/../b", "/x?a=/../b"),
        ("/admin/./..//x%2Dy/.", "/x%2Dy/"),
        ("/admin/..", "/"),
        // There is nothing to resolve, so the path goes on as it came.
        ("/x//%79/..a/...?/..", "/x//%79/..a/...?/.."),
    ];
    let mut conn = Conn::open(balancer.address);
    for (target, expected) in rows {
        conn.get(target).expect(200);
        let seen = backend.seen().pop().expect("a request");
        assert_eq!(seen.request_line(), format!("GET {expected} HTTP/1.1"), "{target}");
    }
    // A path that is resolved before it is sent is judged as it is sent.
    conn.get("/a%2Fb/../x%2F..%2Fadmin").problem(403);
    // Without routes nothing is judged, and nothing changes.
    let bare = Setup::on(engine).backend(backend.address()).start();
    bare.get("/admin/../x").expect(200);
    assert_eq!(backend.seen().pop().expect("a request").request_line(), "GET /admin/../x HTTP/1.1");
}

fn behind_a_trusted_proxy_the_client_is_who_it_names(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([{ "pool": "default", "allow": ["192.0.2.0/24", "2001:db8::/32"] }]);
    let balancer =
        setup(engine, &backend, routes).set("rate_limit.trusted_proxies", json!(["127.0.0.1"])).start();
    let ask = |named: &str| request(balancer.address, "GET", "/", &[("X-Forwarded-For", named)], b"").status;
    assert_eq!(
        ["192.0.2.7", "2001:db8::7", "198.51.100.1", "192.0.2.7, 10.0.0.1"].map(ask),
        [200, 200, 403, 403]
    );
    // What a peer says that is not trusted does not count.
    let mut conn = Conn::from("127.0.0.2".parse().expect("an address"), balancer.address);
    conn.ask("GET", "/", &[("X-Forwarded-For", "192.0.2.7")], b"").problem(403);
}
