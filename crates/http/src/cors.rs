//! Fields that let a browser's script of another origin read a refusal of ours (WHATWG Fetch, "CORS protocol").
//! Backends do the same for their own answers.

use super::fields::Fields;

/// Fields of a refusal that a script may read.
const EXPOSED: &str = "RateLimit, RateLimit-Policy, Retry-After";

/// [`EXPOSED`], and the older fields `X-RateLimit-*`.
const EXPOSED_WITH_LEGACY: &str = "RateLimit, RateLimit-Policy, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, \
                                   X-RateLimit-Reset";

/// Which origins' scripts may see refusals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// The origins, serialised (RFC 6454 §6.1) and in lower case; `None`: every origin.
    pub origins: Option<Vec<String>>,
    /// Whether scripts that send cookies may see refusals. Browsers accept that for named origins alone.
    pub credentials: bool,
}

impl Cors {
    /// Whether a request is a CORS-preflight request (Fetch) from an allowed origin: a browser asks what it may send. A
    /// request with credentials is not one, since browsers send none with it.
    pub fn is_preflight(&self, method: &str, fields: &Fields, has_body: bool) -> bool {
        method == "OPTIONS"
            && !has_body
            && fields.has("Access-Control-Request-Method")
            && !fields.has("Authorization")
            && !fields.has("Cookie")
            && self.allowed(fields).is_some()
    }

    /// Adds to a refusal the fields that let the origin of the request `asked` read it, if it may. `legacy`: the
    /// refusal has the fields `X-RateLimit-*`.
    pub fn open(&self, asked: &Fields, legacy: bool, answer: &mut Fields) {
        let Some(origin) = self.allowed(asked) else { return };
        let any = self.origins.is_none();
        answer.push("Access-Control-Allow-Origin", if any { b"*" } else { origin });
        if !any {
            // The answer depends on the origin, which a cache must know.
            answer.push("Vary", b"Origin");
        }
        if self.credentials {
            answer.push("Access-Control-Allow-Credentials", b"true");
        }
        let exposed = if legacy { EXPOSED_WITH_LEGACY } else { EXPOSED };
        answer.push("Access-Control-Expose-Headers", exposed.as_bytes());
    }

    /// The origin of a request, if it may see refusals.
    fn allowed<'a>(&self, fields: &'a Fields) -> Option<&'a [u8]> {
        let origin = fields.get("Origin")?;
        match &self.origins {
            None => Some(origin),
            Some(origins) => {
                origins.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(origin)).then_some(origin)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        list.iter().for_each(|(name, value)| fields.push(name, value.as_bytes()));
        fields
    }

    fn opened(cors: &Cors, asked: &Fields) -> Vec<(String, String)> {
        let mut answer = Fields::new();
        cors.open(asked, false, &mut answer);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        answer.iter().map(|(name, value)| (name.to_owned(), text(value))).collect()
    }

    #[test]
    fn a_preflight_is_told_from_other_requests() {
        let cors = Cors { origins: None, credentials: false };
        let whole = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "PUT")];
        assert!(cors.is_preflight("OPTIONS", &fields(&whole), false));
        assert!(!cors.is_preflight("OPTIONS", &fields(&whole), true));
        assert!(!cors.is_preflight("GET", &fields(&whole), false));
        assert!(!cors.is_preflight("OPTIONS", &fields(&whole[..1]), false));
        assert!(!cors.is_preflight("OPTIONS", &fields(&whole[1..]), false));
        for credentials in ["Authorization", "Cookie"] {
            let more = [&whole[..], &[(credentials, "x")]].concat();
            assert!(!cors.is_preflight("OPTIONS", &fields(&more), false), "{credentials}");
        }
        let named = Cors { origins: Some(vec!["https://b.example".into()]), credentials: false };
        assert!(!named.is_preflight("OPTIONS", &fields(&whole), false));
    }

    #[test]
    fn a_refusal_is_opened_to_the_origins_that_may_see_it() {
        let asked = fields(&[("Origin", "https://a.example")]);
        let any = opened(&Cors { origins: None, credentials: false }, &asked);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let exposed = pair("Access-Control-Expose-Headers", EXPOSED);
        assert_eq!(any, [pair("Access-Control-Allow-Origin", "*"), exposed.clone()]);
        let named = Cors { origins: Some(vec!["https://a.example".into()]), credentials: true };
        let told = [
            pair("Access-Control-Allow-Origin", "https://a.example"),
            pair("Vary", "Origin"),
            pair("Access-Control-Allow-Credentials", "true"),
            exposed,
        ];
        assert_eq!(opened(&named, &asked), told);
        for other in ["https://a.example:8443", "http://a.example", "null", "https://a.example.evil"] {
            assert!(opened(&named, &fields(&[("Origin", other)])).is_empty(), "{other}");
        }
        assert!(opened(&named, &fields(&[])).is_empty());
    }
}
