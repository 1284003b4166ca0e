//! The API of OpenAI, as far as it is here: chat completions, whole and streamed, and the list of models.
//!
//! Requests are those of OpenAI; fields that mean nothing here go to the runner as they are, or are passed over. The name
//! of an answer is the name of its task, so that any node can call it off.

pub(crate) mod cancel;
pub(crate) mod chat;
mod failure;
mod forms;
pub(crate) mod models;
mod request;
mod stream;

use lockstep_inference::runner::LINE_BYTES;

pub(crate) use forms::task_of;

/// The longest request to a model, in bytes: with what surrounds it, it must fit into one line to its runner.
pub(crate) const QUESTION_BYTES_AT_MOST: usize = LINE_BYTES - (64 << 10);
