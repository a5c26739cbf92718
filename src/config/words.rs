//! What keys take: the words of faults and of the reference, and a JSON Schema. A pattern is never narrower than the
//! code in [`super::forms`] and beside the keys that reads the value; it is wider where a pattern can't express the
//! rule.

use serde_json::{Value, json};

use crate::declare::{Form, duration_pattern};

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

pub(super) const PATH: Form = Form::new("a path", || text("^."));
pub(super) const VARIABLE: Form = Form::new("the name of a variable", || text("^."));
pub(super) const SCHEMA: Form = Form::text("a URL or a path");
pub(super) const POOL: Form = Form::text("the name of a pool");
pub(super) const SECRET: Form = Form::new(super::forms::TOKEN, || text("^[!-~]{16,512}$"));
pub(crate) const NAME: Form =
    Form::new("1 to 128 letters, digits and . _ - : [ ]", || text(r"^[A-Za-z0-9._:\[\]-]{1,128}$"));
pub(super) const TOKEN: Form =
    Form::new("1 to 128 letters, digits and other characters of a token (RFC 9110 §5.6.2)", || {
        text(&format!("^{TOKEN_CHARS}$"))
    });
pub(crate) const BACKEND_URL: Form =
    Form::new("http://HOST[:PORT], https://HOST[:PORT] or srv://_SERVICE._PROTO.DOMAIN", || {
        text(&backend_url())
    });
pub(super) const COLLECTOR_URL: Form =
    Form::new("http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]", || text(&collector_url()));
pub(super) const PROTOCOL: Form = Form::new("\"h2\" or \"http/1.1\"", || text("^(h2|http/1\\.1)$"));
pub(super) const HOST_NAME: Form = Form::new("a host name without a port", || text(&format!("^{}$", host())));
pub(super) const UPGRADE: Form = Form::new("\"websocket\", the one protocol that is relayed", || {
    text("^[Ww][Ee][Bb][Ss][Oo][Cc][Kk][Ee][Tt]$")
});
pub(super) const HASH_ON: Form =
    Form::new("\"ip\", \"client\", \"uri\", \"header:NAME\" or \"cookie:NAME\"", || {
        text(&format!("^(ip|client|uri|(header|cookie):{TOKEN_CHARS})$"))
    });
pub(super) const ORIGIN: Form =
    Form::new("an origin such as \"https://app.example\", or \"*\" for all", || {
        text(r"^(\*|[A-Za-z]+://[A-Za-z0-9._:\[\]-]{1,255})$")
    });
pub(super) const BUCKET_NAME: Form =
    Form::new("1 to 64 printable ASCII characters, and not \"concurrency\"", || {
        text("^(?!concurrency$)[ -~]{1,64}$")
    });
pub(super) const PREFIX: Form = Form::new("a path below which others stand, such as \"/v2\"", || {
    text(r##"^/[^\u0000-\u0020\u007f-\uffff"#<>?\\^`{|}]{1,2047}$"##)
});
pub(super) const ROUTE_PATH: Form =
    Form::new("a path that begins with /, without a query, such as \"/login\"", || text("^/[^?#]{0,1023}$"));
pub(super) const TARGET: Form = Form::new("a path that begins with /, such as \"/healthz\"", || {
    text(r##"^/[^\u0000-\u0020\u007f-\uffff"#<>\\^`{|}]{0,2047}$"##)
});
pub(super) const REDIRECT: Form = Form::new(
    "a URL such as \"https://new.example\", or a path that begins with /; $client_ip, $request_id and $host stand for their values",
    || {
        let plain = r##"[^\u0000-\u0020\u007f-\uffff"<>\\^`{|}]*"##;
        let host = r##"[^\u0000-\u0020\u007f-\uffff"<>\\^`{|}/?#@]+"##;
        text(&format!("^([Hh][Tt][Tt][Pp][Ss]?://{host}([/?#]{plain})?|/(?!/){plain})$"))
    },
);
pub(super) const RULE_LIMIT: Form = Form::new("a limit such as \"5/m\" or \"600/m burst 50\"", limit);
pub(super) const LIMIT: Form = Form::new(
    "a limit: \"100/s\", \"600/m burst 50\", {\"capacity\": 100, \"rate_per_sec\": 10} or {\"buckets\": […]}",
    limit,
);
pub(super) const PER: Form =
    Form::new("a span such as \"1s\", \"1m\", \"1h\" or \"1d\", at most \"366d\", or \"1mo\"", || {
        text("^(0*[1-9][0-9]{0,8}[smhd]|1mo)$")
    });
/// No `multipleOf`: readers that divide by floats get it wrong.
pub(crate) const AMOUNT: Form = Form::new(
    "a number: 0, or 0.000001 to 1000000000 with at most 6 decimals",
    || json!({ "type": "number", "maximum": 1_000_000_000, "anyOf": [{ "const": 0 }, { "minimum": 0.000_001 }] }),
);
pub(super) const ADDRESS: Form =
    Form::new("an address with a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"", || {
        text(&format!("^(localhost|{}):{PORT_DIGITS}$", ip_in_url()))
    });
pub(super) const RESOLVER: Form = Form::new("an IP address with a port, such as \"10.0.0.2:53\"", || {
    text(&format!("^{}:{PORT_DIGITS}$", ip_in_url()))
});
pub(super) const NETWORK: Form =
    Form::new("an IP network such as \"10.0.0.0/8\" or an IP address", || text(&network()));
pub(super) const HOST: Form = Form::new("a host such as \"api.example.com\" or \"*.example.com\"", || {
    text(&format!(r"^(\*\.)?({}|\[{V6}\])$", host()))
});
pub(super) const OUTLIER_STATUSES: Form =
    Form::new("status codes from 100 to 599, such as \"500-599\" or \"502,503\"", any_statuses);
pub(super) const HEALTHY_STATUSES: Form =
    Form::new("status codes from 100 to 599, such as \"200-399\" or \"200,204\"", any_statuses);
pub(super) const RETRY_ON: Form =
    Form::new("\"connect\", \"reset\", \"timeout\" or a status such as \"503\" or \"502-504\"", || {
        text(&format!("^(connect|reset|timeout|{}(,{})*)$", statuses("45"), statuses("45")))
    });
pub(super) const DATABASE: Form =
    Form::new("sqlite:PATH or postgres://USER:PASSWORD@HOST[:PORT]/DATABASE[?sslmode=…]", || {
        text(&format!("^(sqlite:(?!//[^/]|:memory:$)[^?\\u0000]*[^?/\\u0000]|{POSTGRES_URL})$"))
    });
pub(super) const POSTGRES: Form =
    Form::new("postgres://USER:PASSWORD@HOST[:PORT]/DATABASE[?sslmode=…]", || {
        text(&format!("^{POSTGRES_URL}$"))
    });
pub(super) const REQUEST_TIMEOUT: Form =
    Form::new("a duration from \"1ms\" to \"1d\", such as \"1m\"", || text(&duration_pattern("1ms", "1d")));
pub(super) const BODY: Form =
    Form::new("a text of at most 65536 bytes", || json!({ "type": "string", "maxLength": 65_536 }));
pub(super) const ACCESS_LOG: Form = Form::new(
    "true, false or \"file:PATH\"",
    || json!({ "anyOf": [{ "type": "boolean" }, text("^file:[^\\u0000]*[^/\\u0000]$")] }),
);
pub(super) const METHODS: Form = Form::new("a method such as \"POST\", or a list of 1 to 16", || {
    let method = text(&format!("^{TOKEN_CHARS}$"));
    let list = json!({ "type": "array", "items": method, "minItems": 1, "maxItems": 16 });
    json!({ "anyOf": [method, list] })
});
pub(crate) const IN_FLIGHT: Form = Form::new(
    "a whole number from 1 to 1000000, \"auto\"",
    || json!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 1_000_000 }, { "const": "auto" }] }),
);
pub(super) const REDIRECT_STATUS: Form =
    Form::new("301, 302, 303, 307 or 308", || json!({ "enum": [301, 302, 303, 307, 308] }));
pub(super) const FIELDS: Form =
    Form::new("an object of at most 64 fields: {\"X-Client\": \"$client_ip\", \"X-Old\": null}", || {
        let value = json!({
            "type": "string", "maxLength": 4096,
            "pattern": r"^(?![ \t])[^\u0000-\u0008\u000a-\u001f\u007f]*(?<![ \t])$",
        });
        json!({
            "type": "object", "maxProperties": 64, "propertyNames": { "pattern": format!("^{TOKEN_CHARS}$") },
            "additionalProperties": { "anyOf": [{ "type": "null" }, value] },
        })
    });
pub(super) const ERRORS: Form = Form::new(
    "an object of statuses from 400 to 599 and files: {\"503\": \"sorry.html\"}",
    || {
        json!({
            "type": "object", "propertyNames": { "pattern": "^[45][0-9]{2}$" }, "additionalProperties": text("^."),
        })
    },
);
pub(super) const CLIENT_KEYS: Form = Form::new(
    "\"ip\", \"header:NAME\", \"cookie:NAME\", \"bearer\", \"cert\", \"cert:san\", {\"header\": \"NAME\", \"as\": \"KIND\"}, or \
     a list of at most 8 of these",
    client_keys,
);

/// RFC 9110 §5.6.2.
const TOKEN_CHARS: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}";
const PORT_DIGITS: &str =
    "0*([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// Where colons may be is left to the code that reads it.
const V6: &str = "[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*";
/// The PostgreSQL client's own parser judges the rest.
const POSTGRES_URL: &str = "postgres(ql)?://.+";

fn v4() -> String {
    format!(r"({BYTE}\.){{3}}{BYTE}")
}

fn ip_in_url() -> String {
    format!(r"({}|\[{V6}(%[0-9]+)?\])", v4())
}

/// A name whose last label is no number, or an address.
fn host() -> String {
    let label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
    let number_last = r"([A-Za-z0-9_-]*\.)*[0-9]+\.?([:/]|$)";
    format!(r"({}\.?|(?!{number_last})({label}\.)*{label}\.?)", v4())
}

fn backend_url() -> String {
    let port = PORT_DIGITS.replacen("0*", "(?!0+/?$)0*", 1);
    let host = host();
    let special = "_[A-Za-z0-9_-]{0,61}[A-Za-z0-9_]";
    format!(
        r"^([Hh][Tt][Tt][Pp][Ss]?://({host}|\[{V6}\])(:{port})?|[Ss][Rr][Vv]://{special}\.{special}\.{host})/?$"
    )
}

fn collector_url() -> String {
    let port = PORT_DIGITS.replacen("0*", "(?!0+(/|$))0*", 1);
    let path = r#"(/[!"$->A-~]*)?"#;
    format!(r"^[Hh][Tt][Tt][Pp][Ss]?://({}|\[{V6}\])(:{port})?{path}$", host())
}

fn network() -> String {
    format!("^({}(/([0-9]|[12][0-9]|3[0-2]))?|{V6}(/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?)$", v4())
}

fn any_statuses() -> Value {
    text(&format!("^{}(,{})*$", statuses("1-5"), statuses("1-5")))
}

/// One status or a range of them.
fn statuses(first: &str) -> String {
    let code = format!("\\s*[{first}][0-9]{{2}}\\s*");
    format!("{code}(-{code})?")
}

/// `100/s burst 20`.
fn limit() -> Value {
    let amount = r"(-0(\.0+)?|[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?)";
    let span = "(s|m|h|d|0*[1-9][0-9]{0,8}[smhd]|1mo)";
    text(&format!("^\\s*{amount}/{span}\\s*( burst \\s*[0-9]+\\s*)?$"))
}

/// `rate_limit.key`.
fn client_keys() -> Value {
    let source = text(&format!("^(ip|bearer|cert|cert:san|(header|cookie):{TOKEN_CHARS})$"));
    let name = text(&format!("^{TOKEN_CHARS}$"));
    let kind = text("^(?!san$)[A-Za-z][A-Za-z0-9_.-]{0,63}$");
    let declared = json!({
        "type": "object", "additionalProperties": false,
        "properties": { "header": name, "cookie": name, "as": kind },
        "oneOf": [{ "required": ["header"] }, { "required": ["cookie"] }],
    });
    let one = json!({ "anyOf": [source, declared] });
    json!({ "anyOf": [source, declared, {
        "type": "array", "items": one, "minItems": 1, "maxItems": 8, "uniqueItems": true,
    }] })
}
