//! Socket activation: whoever starts us may have made the control socket already, and keeps it
//! while we do not run (sd_listen_fds(3)).

use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use super::exit::Stop;
use crate::config::Environment;

/// Descriptors that may be handed over: far more than there is use for.
const HANDED_OVER_MAX: usize = 64;

/// What was handed over to this process.
#[derive(Debug, Default)]
pub(super) struct HandedOver {
    /// The control socket, if it is among it.
    pub(super) control_socket: Option<UnixListener>,
    /// What there is no use for, and why: for the log, which is not there yet.
    pub(super) others: Vec<String>,
}

/// Takes what was handed over to this process. Call it before there are threads: the variables that
/// tell of it are taken out of the environment.
///
/// # Errors
/// When something was handed over, and no control socket is among it.
pub(super) fn handed_over(environment: &Environment) -> Result<HandedOver, Stop> {
    if !is_for(std::process::id(), environment) {
        return Ok(HandedOver::default());
    }
    if let Some(count) = count(environment)?
        && count > HANDED_OVER_MAX
    {
        let told = format_args!("LISTEN_FDS: {count} descriptors were handed over; one is needed");
        return Err(Stop::failure(told));
    }
    let mut handed_over = ListenFd::from_env();
    let mut found = None;
    let mut others = Vec::new();
    for number in 0..handed_over.len() {
        match handed_over.take_unix_listener(number) {
            Ok(Some(socket)) if !listens(&socket) => {
                others.push(format!("descriptor {} does not listen", number + FIRST));
            }
            Ok(Some(socket)) if found.is_none() => found = Some(socket),
            Ok(_) => others.push(format!("descriptor {} is one more", number + FIRST)),
            Err(error) => others.push(error.to_string()),
        }
    }
    if found.is_none() && handed_over.len() > 0 {
        return Err(Stop::failure(format_args!(
            "no listening Unix stream socket was handed over ({}); write ListenStream= with a path \
             into the socket unit, or start without it",
            others.join(", ")
        )));
    }
    Ok(HandedOver { control_socket: found, others })
}

/// The first descriptor that is handed over.
const FIRST: usize = 3;

/// How many descriptors were handed over, if any.
fn count(environment: &Environment) -> Result<Option<usize>, Stop> {
    let Some(text) = environment.var("LISTEN_FDS") else { return Ok(None) };
    let count = text.to_str().and_then(|text| text.parse().ok());
    count.map(Some).ok_or_else(|| Stop::failure("LISTEN_FDS is not a number of descriptors"))
}

/// Whether what is handed over is meant for this process, and not for one that started it.
fn is_for(process: u32, environment: &Environment) -> bool {
    let named = environment.var("LISTEN_PID").and_then(|pid| pid.to_str()?.parse().ok());
    named == Some(process)
}

fn listens(socket: &UnixListener) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        Environment { vars, ..Environment::default() }
    }

    #[test]
    fn only_what_is_meant_for_this_process_is_taken() {
        assert!(is_for(42, &environment(&[("LISTEN_PID", "42"), ("LISTEN_FDS", "1")])));
        for other in [&[("LISTEN_PID", "41")][..], &[("LISTEN_PID", "x")], &[("LISTEN_FDS", "1")]] {
            assert!(!is_for(42, &environment(other)), "{other:?}");
            let found = handed_over(&environment(other)).expect("nothing was handed over");
            assert!(found.control_socket.is_none() && found.others.is_empty());
        }
    }

    #[test]
    fn a_number_of_descriptors_that_is_none_is_refused() {
        let pid = std::process::id().to_string();
        for wrong in ["x", "-1", "65", "4000000000"] {
            let environment = environment(&[("LISTEN_PID", &pid), ("LISTEN_FDS", wrong)]);
            let stop = handed_over(&environment).expect_err(wrong);
            assert!(stop.message.contains("LISTEN_FDS"), "{wrong}: {stop}");
        }
    }
}
