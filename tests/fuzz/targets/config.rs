//! Configuration files.

use std::path::Path;

use distmsg::config::{ADDRESSES_MAX, Config, LINKS_AUTO_MAX};

/// One file.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let path = Path::new("distmsg.toml");
    let parsed = Config::parse(text, path);
    assert_eq!(parsed, Config::parse(text, path), "read twice");
    match parsed {
        Ok(config) => {
            assert!(!config.listen.is_empty() || text.contains("listen"), "nobody asked for that");
            assert!(config.listen.len() <= ADDRESSES_MAX);
            assert!(config.advertise.len() <= ADDRESSES_MAX);
            assert!(config.links_auto <= LINKS_AUTO_MAX);
        }
        Err(problems) => {
            assert!(problems.iter().count() > 0, "refused without a reason");
            for problem in problems.iter() {
                let shown = problem.to_string();
                let control = shown.chars().find(|character| character.is_control());
                assert_eq!(control, None, "{shown:?}");
                let lines = text.lines().count().max(1);
                // The end of the last line counts as the beginning of another.
                assert!(problem.line.is_none_or(|line| (1..=lines + 1).contains(&line)), "{shown}");
            }
        }
    }
}
