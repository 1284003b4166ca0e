//! The JSON forms of answers, as OpenAI's API has them.

use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_inference::id::{ModelId, TaskId};
use lockstep_inference::transient::{StopReason, Usage};
use serde_json::{Value, json};

use crate::api::errors::{ApiError, sentence};

/// What names of answers begin with.
const PREFIX: &str = "chatcmpl-";

/// What all parts of one answer say.
#[derive(Clone, Debug)]
pub(super) struct Head {
    id: String,
    created: u64,
    model: ModelId,
}

impl Head {
    /// Of the answer that this task gives, from now on.
    pub(super) fn new(task: TaskId, model: ModelId) -> Head {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Head { id: format!("{PREFIX}{task}"), created, model }
    }

    /// A whole answer.
    pub(super) fn whole(&self, text: &str, stop: StopReason, took: Usage) -> Value {
        let message = json!({ "role": "assistant", "content": text, "refusal": null });
        let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(stop) });
        let mut answer = self.part("chat.completion", json!([choice]));
        answer["usage"] = usage(took);
        answer
    }

    /// A part of an answer: what is new, and why it is the last if it is.
    pub(super) fn chunk(&self, delta: Value, stop: Option<StopReason>) -> Value {
        let reason = stop.map(finish_reason);
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason });
        self.part("chat.completion.chunk", json!([choice]))
    }

    /// What comes after the last part, for those who want to know.
    pub(super) fn usage_chunk(&self, took: Usage) -> Value {
        let mut chunk = self.part("chat.completion.chunk", json!([]));
        chunk["usage"] = usage(took);
        chunk
    }

    fn part(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices,
            "system_fingerprint": null,
        })
    }
}

/// The task that gives the answer of this name.
///
/// # Errors
/// It is no name of an answer.
pub(crate) fn task_of(id: &str) -> Result<TaskId, ApiError> {
    id.strip_prefix(PREFIX)
        .unwrap_or(id)
        .parse()
        .map_err(|error| ApiError::bad_request("bad_id", sentence(error)).of("id"))
}

fn finish_reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::Stop => "stop",
        StopReason::Length => "length",
    }
}

fn usage(Usage { prompt_tokens, completion_tokens }: Usage) -> Value {
    let total_tokens = prompt_tokens.saturating_add(completion_tokens);
    json!({ "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total_tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_form_of_openai() {
        let head = Head { id: "chatcmpl-1".into(), created: 7, model: ModelId::new("m") };
        let took = Usage { prompt_tokens: 3, completion_tokens: 2 };
        let wanted = json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "m", "system_fingerprint": null,
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "length",
                "message": { "role": "assistant", "content": "Hi.", "refusal": null },
            }],
            "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 },
        });
        assert_eq!(head.whole("Hi.", StopReason::Length, took), wanted);
        let wanted = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m",
            "system_fingerprint": null,
            "choices": [{ "index": 0, "logprobs": null, "finish_reason": null, "delta": { "content": "Hi" } }],
        });
        assert_eq!(head.chunk(json!({ "content": "Hi" }), None), wanted);
    }

    #[test]
    fn a_name_leads_back_to_its_task() {
        let task = TaskId([7; 16]);
        let head = Head::new(task, ModelId::new("m"));
        assert_eq!(task_of(&head.id).ok(), Some(task));
        assert_eq!(task_of(&task.to_string()).ok(), Some(task));
        assert!(task_of("chatcmpl-7").is_err());
    }
}
