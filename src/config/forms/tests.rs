use proptest::prelude::*;

use super::*;

#[test]
fn backend_urls_are_http_host_and_port() {
    let long = format!("http://{}", ["a".repeat(63).as_str(); 5].join("."));
    for (text, expected) in [
        ("http://127.0.0.1:9001", Some(("127.0.0.1", 9001))),
        ("http://127.0.0.1:9001/", Some(("127.0.0.1", 9001))),
        ("HTTP://Example.NET", Some(("example.net", 80))),
        ("http://my_service-1:08080", Some(("my_service-1", 8080))),
        ("https://h", Some(("h", 443))),
        ("HTTPS://h:80/", Some(("h", 80))),
        ("https://h/x", None),
        ("https://u@h", None),
        ("httpss://h", None),
        ("http://h.", Some(("h.", 80))),
        ("http://[::1]:9", Some(("::1", 9))),
        ("http://[0:0::1]", Some(("::1", 80))),
        ("http://::1:9", None),
        ("http://[::1]9", None),
        ("http://[::1]:", None),
        ("http://[fe80::1%25eth0]:1", None),
        ("http://[127.0.0.1]", None),
        ("http://h:", None),
        ("http://h: 1", None),
        ("http://h:1:2", None),
        ("srv://_http._tcp.api.example.com", Some(("_http._tcp.api.example.com", 0))),
        ("SRV://_Web._Canary.h./", Some(("_web._canary.h.", 0))),
        ("srv://_http._tcp.h:80", None),
        ("srv://_http._tcp.h/x", None),
        ("srv://u@_http._tcp.h", None),
        ("srv://_http._tcp", None),
        ("srv://_http._tcp.", None),
        ("srv://_http.tcp.h", None),
        ("srv://http._tcp.h", None),
        ("srv://_._tcp.h", None),
        ("srv://_http._.h", None),
        ("srv://_http._tcp.1.2.3.4", None),
        ("srv://127.0.0.1", None),
        ("srv://[::1]", None),
        ("srv://", None),
        ("http://-h", None),
        ("http://a..b", None),
        ("http://.", None),
        ("http://256.1.1.1", None),
        ("http://1", None),
        ("http://bücher.example", None),
        ("http://h\r\nX: y", None),
        ("http:/h", None),
        ("http://h/x", None),
        ("http://h//", None),
        ("http://h#x", None),
        (&long, None),
    ] {
        let read = backend_url(text).ok();
        assert_eq!(
            read.as_ref().is_some_and(|read| read.is_tls),
            read.is_some() && text.len() < 99 && text[..5].eq_ignore_ascii_case("https")
        );
        assert_eq!(read.as_ref().map(|read| (read.host.as_str(), read.port)), expected, "{text:?}");
    }
}

#[test]
fn networks_are_masked_and_mapped_ones_become_ipv4() {
    for (text, expected) in [
        ("10.1.2.3/8", Some("10.0.0.0/8")),
        ("10.1.2.3", Some("10.1.2.3/32")),
        ("::1", Some("::1/128")),
        ("2001:db8::1/32", Some("2001:db8::/32")),
        ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
        ("::ffff:10.1.2.3", Some("10.1.2.3/32")),
        ("::ffff:0:0/96", Some("0.0.0.0/0")),
        ("::/0", Some("::/0")),
        ("0.0.0.0/0", Some("0.0.0.0/0")),
        ("10.0.0.0/33", None),
        ("10.0.0/8", None),
        ("localhost", None),
        ("", None),
    ] {
        assert_eq!(network(text).ok().map(|net| net.to_string()).as_deref(), expected, "{text:?}");
    }
}

#[test]
fn addresses_have_a_port() {
    for (text, expected) in [
        ("127.0.0.1:0", Some("127.0.0.1:0")),
        ("localhost:80", Some("127.0.0.1:80")),
        ("[::]:8080", Some("[::]:8080")),
        ("127.0.0.1", None),
        (":8080", None),
        ("8080", None),
        ("example.net:80", None),
        ("127.0.0.1:65536", None),
    ] {
        assert_eq!(address(text).ok().map(|one| one.to_string()).as_deref(), expected, "{text:?}");
    }
}

#[test]
fn status_ranges_are_inclusive_and_in_order() {
    for (text, expected) in [
        ("200-399", Some(vec![(200, 399)])),
        ("200", Some(vec![(200, 200)])),
        ("200, 204,301-302", Some(vec![(200, 200), (204, 204), (301, 302)])),
        ("100-599", Some(vec![(100, 599)])),
        ("399-200", None),
        ("099", None),
        ("600", None),
        ("200-", None),
        ("2xx", None),
        ("+20", None),
        ("200,", None),
        ("", None),
    ] {
        assert_eq!(status_ranges(text), expected, "{text:?}");
    }
}

#[test]
fn targets_and_names_are_plain() {
    for (text, good) in [
        ("/", true),
        ("/a?b=%20", true),
        ("a", false),
        ("", false),
        ("/a b", false),
        ("/a#b", false),
        ("/ü", false),
    ] {
        assert_eq!(target(text).is_some(), good, "{text:?}");
    }
    for (text, good) in
        [("a", true), ("[::1]:80", true), ("a.b-c_d", true), ("", false), ("a/b", false), ("a\"b", false)]
    {
        assert_eq!(backend_name(text).is_some(), good, "{text:?}");
    }
    assert!(backend_name(&"a".repeat(128)).is_some() && backend_name(&"a".repeat(129)).is_none());
}

#[test]
fn postgres_urls_are_judged_without_being_repeated() {
    for (text, said) in [
        ("postgres://u:hunter2@h/d", None),
        ("postgresql://u@h:5432/d?sslmode=verify-full&sslrootcert=/ca.pem", None),
        ("postgres://u@h/d?sslmode=require&application_name=x&sslnegotiation=postgres", None),
        ("postgres://u@%2Frun%2Fpostgresql/d", None),
        ("postgres://u:hunter2@h/d?sslmode=hunter2", Some("sslmode")),
        ("postgres://u:hunter2@h/d?hunter2=1", Some("percent-encode")),
        ("postgres://u:hunter2@h:hunter2/d", Some("percent-encode")),
        // The client finds the user's end at the @.
        ("postgres://u:hun?ter2@h/d", None),
        ("postgres:///d", Some("")),
        ("postgres://h/d", Some("names no user")),
        ("postgres://", Some("")),
        ("mysql://u:hunter2@h", Some("")),
    ] {
        match (database_url(text, Path::new("/")), said) {
            (Ok(DatabaseUrl::Postgres(url)), None) => assert_eq!(url.reveal(), text),
            (Err(why), Some(said)) => {
                let why = why.unwrap_or_default();
                assert!(why.contains(said) && !why.contains("hunter2"), "{text}: {why}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_form_panic(text in "(http://|postgres://|sqlite:|::ffff:)?[-\\[\\]0-9a-z.:/@%?&=,éü ]{0,30}") {
        let _ = crate::declare::parse_duration(&text);
        let _ = address(&text);
        let _ = network(&text);
        let _ = status_ranges(&text);
        let _ = database_url(&text, Path::new("/"));
        if let Ok(authority) = backend_url(&text) {
            let is_srv = text.get(..3).is_some_and(|scheme| scheme.eq_ignore_ascii_case("srv"));
            prop_assert!(!authority.host.is_empty() && (authority.port == 0) == is_srv);
            prop_assert!(!authority.host.contains(['/', '@', '?', '#', ' ', '[']));
        }
    }
}

#[test]
fn collectors_are_called_at_v1_traces_below_whatever_path_they_have() {
    for (text, expected) in [
        ("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces")),
        ("http://127.0.0.1:4318/", Some("http://127.0.0.1:4318/v1/traces")),
        ("HTTP://Otel", Some("http://otel:80/v1/traces")),
        ("https://[0::1]/otlp/", Some("https://[::1]:443/otlp/v1/traces")),
        ("https://otel/v1/traces", Some("https://otel:443/v1/traces")),
        ("https://otel/a%20b/v1/traces/", Some("https://otel:443/a%20b/v1/traces")),
        ("otel:4318", None),
        ("grpc://otel:4317", None),
        ("http://", None),
        ("http://otel:0", None),
        ("http://name:secret@otel", None),
        ("http://otel/name:secret@x", None),
        ("http://otel?key=secret", None),
        ("http://otel/x#y", None),
        ("http://otel/a b", None),
        ("http://otel/\r\nX: 1", None),
        ("http://otel/é", None),
    ] {
        let found = collector_url(text);
        assert_eq!(found.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{text:?}");
        if let Err(Some(why)) = found {
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
