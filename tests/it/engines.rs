//! The table of what each engine can do stands in the README as the tests have it.

use crate::support::{engine, root};

#[test]
fn the_readme_shows_the_table_that_the_tests_ask() {
    let Ok(readme) = std::fs::read_to_string(root().join("README.md")) else {
        panic!("README.md is missing");
    };
    let table = engine::table();
    assert!(readme.contains(&table), "README.md must hold this table, word for word:\n{table}");
}
