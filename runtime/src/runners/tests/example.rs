//! The example in Python, as a node would run it.

use super::*;

fn python() -> Option<Stage> {
    let found = std::process::Command::new("python3").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no python3 on this machine");
        return None;
    }
    Some(Stage::start(&["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/runner.py")]))
}

async fn ready(stage: &mut Stage, settings: &[(&str, &str)], rank: u16) {
    for message in [hello(card("it", settings), rank, 2), ToRunner::Connect, ToRunner::Load, ToRunner::WarmUp] {
        stage.tell(&message);
    }
    let mut said = Vec::new();
    while said.last() != Some(&FromRunner::Ready) {
        said.push(stage.message().await);
    }
    said.retain(|message| !matches!(message, FromRunner::Loading { .. }));
    assert_eq!(said, until_ready(4));
}

#[tokio::test]
async fn it_answers_fails_cancels_and_ends() {
    let Some(mut stage) = python() else { return };
    ready(&mut stage, &[], 0).await;
    stage.tell(&chat(TASK, "so much for ü", 3));
    stage.tell(&ToRunner::ShutDown);
    stage.end(Span::seconds(20));
    let (said, reason) = stage.until_the_end().await;
    assert_eq!(reason, "it ended as it was told to, with exit code 0");
    let task = TASK.to_string();
    let expected = [
        json!({"type": "started", "task": task}),
        json!({"type": "token", "task": task, "text": "SO"}),
        json!({"type": "token", "task": task, "text": " MUCH"}),
        json!({"type": "token", "task": task, "text": " FOR"}),
    ];
    let said: Vec<Value> = said.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(texts(&said[..4]), texts(&expected));
    assert_eq!((&said[4]["type"], &said[4]["spans"][0]["name"]), (&json!("trace"), &json!("decode")));
    let usage = json!({"prompt_tokens": 4, "completion_tokens": 3});
    assert_eq!(said[5], json!({"type": "done", "task": task, "stop": "length", "usage": usage}));
    assert_eq!(said.len(), 6);
}

#[tokio::test]
async fn it_works_on_several_tasks_and_drops_the_cancelled_one() {
    let Some(mut stage) = python() else { return };
    ready(&mut stage, &[("seconds_per_token", "0.02")], 0).await;
    let long = "word ".repeat(1_000_000);
    stage.tell(&chat(TASK, &long, 1_000_000));
    while !matches!(stage.message().await, FromRunner::Token { .. }) {}
    stage.tell(&ToRunner::Task { task: TaskId([8; 16]), kind: TaskKind::Embedding, input: json!({}) });
    stage.tell(&ToRunner::Cancel { task: TASK });
    stage.tell(&chat(TaskId([9; 16]), "last", 10));
    stage.tell(&ToRunner::ShutDown);
    let (said, reason) = stage.until_the_end().await;
    assert_eq!(reason, "it ended on its own, with exit code 0", "nobody closed its input");
    assert!(said.iter().any(|line| line.contains("this runner only chats")), "{said:?}");
    assert!(said.last().unwrap().starts_with("{\"type\":\"done\""), "{said:?}");
    assert!(said.len() < 100, "it went on with the cancelled task");
}

#[tokio::test]
async fn a_later_rank_is_silent_and_the_end_of_input_ends_it() {
    let Some(mut stage) = python() else { return };
    ready(&mut stage, &[], 1).await;
    stage.tell(&chat(TASK, "a b c", 10));
    assert!(matches!(stage.message().await, FromRunner::Started { .. }));
    assert!(matches!(stage.message().await, FromRunner::Trace { .. }));
    assert!(matches!(stage.message().await, FromRunner::Done { .. }));
    stage.tell(&chat(TASK, &"word ".repeat(1_000_000), 1_000_000));
    stage.end(Span::seconds(20));
    assert_eq!(stage.until_the_end().await.1, "it ended as it was told to, with exit code 0");
}
