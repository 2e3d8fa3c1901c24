//! Reads a file of vectors: a line each, fields apart by spaces, comments after `#`.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One vector.
pub(crate) struct Row(Vec<String>);

impl Row {
    /// A field as it is written.
    pub(crate) fn text(&self, at: usize) -> &str {
        &self.0[at]
    }

    /// A field that is bytes.
    pub(crate) fn bytes(&self, at: usize) -> Vec<u8> {
        match self.text(at) {
            "-" => Vec::new(),
            text => STANDARD.decode(text).expect("base64"),
        }
    }

    /// A field that is so many bytes.
    pub(crate) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes(at).try_into().expect("as many bytes")
    }

    pub(crate) fn number(&self, at: usize) -> usize {
        self.text(at).parse().expect("a number")
    }

    /// What Wycheproof says of it.
    pub(crate) fn is_valid(&self) -> bool {
        match self.text(1) {
            "valid" => true,
            "invalid" => false,
            other => panic!("{other}: neither valid nor invalid"),
        }
    }

    pub(crate) fn fields(&self) -> usize {
        self.0.len()
    }
}

/// All vectors of a file. Fails if they are not as many as are known to be in it.
pub(crate) fn vectors(file: &str, count: usize) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors").join(file);
    let text = std::fs::read_to_string(path).expect("vectors");
    let rows: Vec<Row> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| Row(line.split(' ').map(str::to_owned).collect()))
        .collect();
    assert_eq!(rows.len(), count, "vectors in {file}");
    rows
}
