//! What is written of the table of keys is as the table is.

use std::fs;
use std::path::Path;

use rialto_protocol::compose::describe;

fn is_written(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    if std::env::var_os("RIALTO_WRITE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/{file} is out of date: RIALTO_WRITE=1 cargo test --release --workspace --test compose writes it"
    );
}

#[test]
fn the_list_of_keys_is_up_to_date() {
    is_written("compose.md", &describe::markdown());
}

#[test]
fn the_schema_of_our_extension_is_up_to_date() {
    let mut text = serde_json::to_string_pretty(&describe::extension_schema()).unwrap();
    text.push('\n');
    is_written("x-rialto.schema.json", &text);
}
