//! Duration of a request up to its response.

use crate::metrics::{Limit, Metrics, Route};
use crate::net::response::Response;
use std::time::Instant;

/// Answers a request, and counts that.
pub async fn time(metrics: &Metrics, route: Route, answering: impl Future<Output = Response>) -> Response {
    let began = Instant::now();
    let response = answering.await;
    metrics.answered(route, response.status().as_u16(), response.extensions().get::<Limit>().copied(), began.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;
    use bigup_core::protocol::native::ErrorCode;

    #[tokio::test]
    async fn an_answer_tells_the_limit_that_it_was_refused_for() {
        let metrics = Metrics::new();
        for refusal in [
            Refusal::over(Limit::Quota, ErrorCode::TooLarge, "too much"),
            Refusal::new(ErrorCode::TooLarge, "no limit"),
        ] {
            time(&metrics, Route::Slice, async { refusal.response() }).await;
        }
        let text = metrics.text();
        for line in [
            "bigup_refused_total{limit=\"quota\"} 1",
            "bigup_request_duration_seconds_count{route=\"slice\",status=\"413\"} 2",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
