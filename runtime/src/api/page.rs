//! `GET /`: the dashboard, one page for people. All that it shows it asks of the API that it came from.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

/// The page may run and style itself, ask this API, show its own icon, and nothing else; nor may another page frame it.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
     img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("page.html");

/// The page.
pub(crate) async fn page() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::routes;

    /// What stands between each `before` and the `after` that follows it.
    fn all(text: &'static str, before: &str, after: &str) -> Vec<&'static str> {
        text.split(before).skip(1).filter_map(|rest| rest.split_once(after)).map(|(found, _)| found).collect()
    }

    fn script() -> &'static str {
        let scripts = all(PAGE, "<script>", "</script>");
        assert_eq!(scripts.len(), 1);
        scripts[0]
    }

    #[test]
    fn what_the_script_looks_for_is_on_the_page() {
        let ids = all(PAGE, " id=\"", "\"");
        let there: BTreeSet<_> = ids.iter().copied().collect();
        assert_eq!(ids.len(), there.len(), "an id is given twice: {ids:?}");
        let sought: BTreeSet<_> = all(script(), "at(\"", "\")").into_iter().collect();
        assert!(sought.is_subset(&there), "{:?} are not there", sought.difference(&there));
    }

    #[test]
    fn what_the_script_asks_for_is_a_route() {
        let paths = routes().paths;
        let asked = all(PAGE, "\"/", "\"").into_iter().chain(all(script(), "`/", "?"));
        let asked: Vec<String> = asked.map(|path| format!("/{path}")).collect();
        assert!(asked.len() >= 6, "{asked:?}");
        for path in asked {
            let is = |route: &&str| **route == path || path.ends_with('/') && route.starts_with(&path);
            assert!(paths.iter().any(is), "{path} is no route");
        }
    }

    #[test]
    fn no_bracket_of_the_script_is_open_and_no_text_without_end() {
        // Brackets within texts come in pairs, too.
        let times = |character: char| script().matches(character).count();
        for (open, close) in [('(', ')'), ('[', ']'), ('{', '}')] {
            assert_eq!(times(open), times(close), "{open} and {close}");
        }
        assert!(times('`').is_multiple_of(2));
        for line in script().lines().map(|line| line.replace("/[\"{}]/", "")) {
            assert!(line.matches('"').count().is_multiple_of(2), "{line}");
        }
    }
}
