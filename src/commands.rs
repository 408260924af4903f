//! One file per verb; this one only chooses.

use crate::{
    cli::{Request, Verb},
    error::{Code, Error, Result},
};

/// Carries out the request; the value is the exit status.
pub fn dispatch(request: Request) -> Result<u8> {
    match request.verb {
        Verb::Say(text) => {
            drop(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()));
            Ok(0)
        }
        other => Err(Error::new(Code::Bug, "carry out the verb", format!("no code behind {other:?}"))),
    }
}
