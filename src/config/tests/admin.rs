//! `admin.tokens`: where each comes from, and what is wrong with it.

use super::*;

fn tokens(list: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    load_with(
        &format!(
            "{{\n\"backends\": [{ONE}],\n\"admin\": {{\"token\": \"first-first-first\", \"tokens\": {list}}}\n}}"
        ),
        env,
    )
}

#[test]
fn tokens_come_from_files_and_variables_and_only_their_hashes_stay() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ops.token"), "hunter2-hunter2-ops\n").unwrap();
    let config = folder.path().join("config.json");
    let text = format!(
        r#"{{"backends": [{ONE}], "admin": {{"allow": ["0.0.0.0/0"], "tokens": [
            {{"name": "ops", "role": "read", "token_file": "ops.token"}},
            {{"name": "admin", "role": "write", "token_env": "CI_TOKEN"}}]}}}}"#
    );
    std::fs::write(&config, text).unwrap();
    let env = [("CI_TOKEN".into(), "hunter2-hunter2-ci".into())];
    let loaded = load(&Options { file: Some(config), ..Options::default() }, &env).unwrap();
    let expected = [("ops", Role::Read, "hunter2-hunter2-ops"), ("admin", Role::Write, "hunter2-hunter2-ci")];
    let expected = expected.map(|(name, role, secret)| ApiToken {
        name: name.into(),
        role,
        hash: SecretHash::of(secret.as_bytes()),
    });
    assert_eq!(loaded.config.admin.tokens, expected);
    assert!(!format!("{:#?}", loaded.config.admin).contains("hunter2"));
}

#[test]
fn each_fault_of_a_token_names_its_place_and_never_the_token() {
    let one = r#""name": "a", "role": "read""#;
    let rows: [(String, &str); 15] = [
        ("{}".into(), "FILE:3: admin.tokens: must be a list of at most 64 tokens"),
        ("[7]".into(), "FILE:3: admin.tokens[0]: must be an object; found a number"),
        (r#"[{"role": "read", "token_env": "A"}]"#.into(), "FILE:3: admin.tokens[0].name: is missing"),
        (
            r#"[{"name": "a b", "role": "read", "token_env": "A"}]"#.into(),
            "FILE:3: admin.tokens[0].name: must be",
        ),
        (r#"[{"name": "a", "token_env": "A"}]"#.into(), "FILE:3: admin.tokens[0].role: is missing"),
        (
            r#"[{"name": "a", "role": "root", "token_env": "A"}]"#.into(),
            "FILE:3: admin.tokens[0].role: must be",
        ),
        (
            format!("[{{{one}}}]"),
            "FILE:3: admin.tokens[0].token_file: is missing; this or token_env must say where",
        ),
        (
            format!(r#"[{{{one}, "token_file": "x", "token_env": "A"}}]"#),
            "FILE:3: admin.tokens[0].token_file: stands beside token_env",
        ),
        (
            format!(r#"[{{{one}, "token_env": "NONE"}}]"#),
            "FILE:3: admin.tokens[0].token_env: names the variable NONE, which is not set",
        ),
        (
            format!(r#"[{{{one}, "token_env": "EMPTY"}}]"#),
            "FILE:3: admin.tokens[0].token_env: must not be empty",
        ),
        (
            format!(r#"[{{{one}, "token_env": "SPACE"}}]"#),
            "FILE:3: admin.tokens[0].token_env: holds no token",
        ),
        (
            format!(r#"[{{{one}, "token_env": "SHORT"}}]"#),
            "FILE:3: admin.tokens[0].token_env: holds no token: 16 to 512 visible ASCII characters",
        ),
        (
            format!(r#"[{{{one}, "token_file": "/nowhere/t"}}]"#),
            "FILE:3: admin.tokens[0].token_file: cannot read /nowhere/t",
        ),
        (format!(r#"[{{{one}, "token": "hunter2"}}]"#), "FILE:3: admin.tokens[0].token: unknown key"),
        (
            format!(r#"[{{{one}, "token_env": "A"}}, {{{one}, "token_env": "B"}}]"#),
            "FILE:3: admin.tokens[1].name: \"a\" names another token already",
        ),
    ];
    let env = [
        ("A", "hunter2-hunter2-a"),
        ("B", "hunter2-hunter2-b"),
        ("EMPTY", ""),
        ("SHORT", "hunter2-hunter2"),
        ("SPACE", "hunter2 with spaces"),
        ("FIRST", "first-first-first"),
    ];
    for (list, expected) in rows {
        let fault = tokens(&list, &env).map(|_| ()).unwrap_err();
        assert!(fault.contains(expected), "{list}: {fault}");
        assert!(!fault.contains("hunter2"), "{list}: {fault}");
    }
    assert!(tokens("[]", &[]).is_ok());
}

#[test]
fn two_tokens_are_not_one() {
    let rows = [
        (
            r#"[{"name": "a", "role": "read", "token_env": "A"}, {"name": "b", "role": "write", "token_env": "A"}]"#,
            "admin.tokens[1]: is the same token as another",
        ),
        (
            r#"[{"name": "a", "role": "read", "token_env": "FIRST"}]"#,
            "admin.tokens[0]: is the same token as another",
        ),
        (
            r#"[{"name": "admin", "role": "read", "token_env": "A"}]"#,
            "admin.tokens[0].name: is what the audit calls admin.token",
        ),
    ];
    for (list, expected) in rows {
        let fault = tokens(list, &[("A", "hunter2-hunter2-a"), ("FIRST", "first-first-first")])
            .map(|_| ())
            .unwrap_err();
        assert!(fault.contains(expected) && !fault.contains("hunter2"), "{list}: {fault}");
    }
}

#[test]
fn a_token_of_any_kind_closes_the_door_to_the_network() {
    let text = |tokens: &str| {
        format!(r#"{{"backends": [{ONE}], "admin": {{"allow": ["0.0.0.0/0"], "tokens": {tokens}}}}}"#)
    };
    let open = load_with(&text("[]"), &[]).unwrap_err();
    assert!(open.contains("admin.allow: lets more than loopback in"), "{open}");
    let one = r#"[{"name": "a", "role": "read", "token_env": "A"}]"#;
    assert!(load_with(&text(one), &[("A", "sixteen-or-more!")]).is_ok());
    // A token that is wrong has its own fault, and no second one.
    let wrong = load_with(&text(one), &[]).unwrap_err();
    assert!(wrong.contains("which is not set") && !wrong.contains("admin.allow"), "{wrong}");
}
