//! How a wrong command line is told, by daemon and ctl alike.

/// What clap found wrong, as the one line that all errors are: its sentence, its tip, and where to
/// read more.
pub fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let told = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty());
    let mut line = String::new();
    for part in told {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        let part = part.strip_prefix("tip: ").unwrap_or(part);
        match line.chars().last() {
            None => {}
            Some(':' | ',') => line.push(' '),
            Some(_) => line.push_str("; "),
        }
        line.push_str(part);
    }
    line
}
