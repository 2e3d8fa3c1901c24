//! Lines from a pipe: a script, which stops at the first failure with its exit code.

use super::{Asked, Shell, parse, show_help};
use crate::ctl::context::{Context, interrupted};
use crate::ctl::exit::{Exit, Failed, Stop};
use crate::ctl::input::{Input, Line, Lines};
use crate::ctl::output::explain;
use crate::ctl::perform;
use crate::model::limits::CONTROL_LINE_BYTES_MAX;

/// Runs standard input.
pub(crate) async fn run(shell: &Shell) -> Exit {
    let mut number = 0;
    match run_lines(shell, &mut number).await {
        Ok(exit) | Err(Stop::Quiet(exit)) => exit,
        Err(Stop::Failed(mut failed)) => {
            // A stream's own line numbers say more.
            failed.line.get_or_insert(number);
            explain(&failed, shell.json);
            failed.exit
        }
    }
}

async fn run_lines(shell: &Shell, number: &mut u64) -> Result<Exit, Stop> {
    let why = |error| Failed::local(format!("cannot read the script: {error}"));
    let mut input = Input::stdin().map_err(why)?;
    let mut lines = Lines::new(CONTROL_LINE_BYTES_MAX);
    loop {
        let read = tokio::select! {
            read = input.next() => read,
            exit = interrupted() => return Ok(exit),
        };
        let Some(read) = read else { break };
        let read = read.map_err(why)?;
        let mut bytes = &read[..];
        while let Some(line) = lines.next(&mut bytes) {
            *number += 1;
            let Line::Whole(line) = line else {
                return Err(Failed::too_large("the line is longer than 1 MiB; use --file").into());
            };
            if let Some(exit) = run_line(&line, shell).await? {
                return Ok(exit);
            }
        }
    }
    let last = lines.last();
    *number += 1;
    match last {
        Some(last) => Ok(run_line(&last, shell).await?.unwrap_or(Exit::Done)),
        None => Ok(Exit::Done),
    }
}

/// Runs one line. An exit code, if that is the end.
async fn run_line(line: &[u8], shell: &Shell) -> Result<Option<Exit>, Stop> {
    let line = std::str::from_utf8(line)
        .map_err(|_| Failed::usage("the line is not UTF-8; send such bytes with --file"))?;
    let exit = match parse(line)? {
        Asked::Nothing => return Ok(None),
        Asked::Exit => return Ok(Some(Exit::Done)),
        Asked::Help(text) => show_help(&text, shell.json),
        Asked::Run(verb, json) => {
            let json = json || shell.json;
            let mut context = Context::new(shell.endpoint.clone(), json, true);
            perform(verb, &mut context).await?
        }
    };
    Ok((exit != Exit::Done).then_some(exit))
}
