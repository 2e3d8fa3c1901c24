//! The bugs that are planted to see that the tests can fail: each must still apply.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// So many there must be at least.
const PLANTS_MIN: usize = 20;

fn plants() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/plants");
    let entries = fs::read_dir(folder).expect("a folder of plants");
    let mut plants: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    plants.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    plants.sort();
    plants
}

#[test]
fn every_plant_says_what_it_breaks_and_still_applies() {
    let plants = plants();
    assert!(plants.len() >= PLANTS_MIN, "there are only {} plants", plants.len());
    for plant in plants {
        let name = plant.display();
        let text = fs::read_to_string(&plant).expect("text");
        let first = text.lines().next().unwrap_or_default();
        let says = first.ends_with('.') && !first.starts_with("diff");
        assert!(says, "{name} does not say in its first line what it breaks");
        let mut git = Command::new("git");
        git.current_dir(env!("CARGO_MANIFEST_DIR")).args(["apply", "--check"]).arg(&plant);
        let output = git.output().expect("git is there to check the plants with");
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} does not apply; make it anew: {why}");
    }
}
