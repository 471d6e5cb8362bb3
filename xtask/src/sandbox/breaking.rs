//! A run that is broken off, by Ctrl-C or SIGTERM to the outer process.
//!
//! Decides how it ends: the outer process closes the pipe that is the standard input of the inner one, which
//! then says what it knows so far and ends, and with it all its processes. Then the outer one removes what the
//! run made. A second signal ends it at once. SIGHUP is left alone, for `nohup`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{self, Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::fs::FileType;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// From the signal to the end of the inner process; then it is killed.
const SAY_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether the inner process has ended.
const LOOK: Duration = Duration::from_millis(50);

type Farewell = Box<dyn FnOnce() + Send>;

/// What the inner process says when it is broken off.
static FAREWELL: Mutex<Option<Farewell>> = Mutex::new(None);

/// Waits for the end of the inner process, whose standard input is a pipe; a signal breaks it off.
pub(super) fn wait(mut inner: Child) -> Result<ExitStatus> {
    let is_broken_off = heed_signals()?;
    let mut kill_at = None;
    loop {
        if let Some(status) = inner.try_wait()? {
            return Ok(status);
        }
        if kill_at.is_none() && is_broken_off.load(Ordering::Acquire) {
            drop(inner.stdin.take());
            kill_at = Some(Instant::now() + SAY_LIMIT);
        }
        if kill_at.is_some_and(|at| Instant::now() >= at) {
            inner.kill()?;
        }
        thread::sleep(LOOK);
    }
}

/// True after the first signal; the second ends the process.
fn heed_signals() -> Result<Arc<AtomicBool>> {
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if tell.swap(true, Ordering::AcqRel) {
                    process::exit(1);
                }
            }
        });
    });
    Ok(told)
}

/// What to say when this run is broken off, in the place of what was to be said before.
pub(crate) fn say_when_broken_off(say: impl FnOnce() + Send + 'static) {
    *farewell() = Some(Box::new(say));
}

fn farewell() -> std::sync::MutexGuard<'static, Option<Farewell>> {
    FAREWELL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called first of all in the inner process: ends it when the outer one closes the pipe. Nobody else reads
/// standard input from then on.
pub(crate) fn end_with_the_pipe() -> Result<()> {
    let stdin = io::stdin();
    if FileType::from_raw_mode(rustix::fs::fstat(&stdin)?.st_mode) != FileType::Fifo {
        return Ok(());
    }
    let mut pipe = File::from(stdin.as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    thread::spawn(move || {
        pipe.read_to_end(&mut Vec::new()).ok();
        println!("BROKEN OFF");
        if let Some(say) = farewell().take() {
            say();
        }
        process::exit(1);
    });
    Ok(())
}
