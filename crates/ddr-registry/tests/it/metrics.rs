//! What the operator sees of the client port.

use metrics_exporter_prometheus::PrometheusBuilder;

use crate::client::eventually;
use crate::server::Server;

// The recorder is this thread's; the runtime of a test has no other.
#[tokio::test]
async fn requests_bytes_and_what_is_in_flight_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    ddr_registry::describe_metrics();
    let server = Server::start().await;
    let digest = server.push_blob("m", &[7; 1000]).await;
    server.get(&format!("/v2/m/blobs/{digest}")).await.expect(200);
    server.get("/v2/m/blobs/sha256:zz").await.expect(400);

    let text = handle.render();
    for line in [
        r#"ddr_registry_requests_total{route="upload-start",status="201"} 1"#,
        r#"ddr_registry_requests_total{route="blob",status="200"} 1"#,
        r#"ddr_registry_requests_total{route="none",status="400"} 1"#,
        "ddr_registry_received_bytes_total 1000",
        "# TYPE ddr_registry_request_seconds",
        "# HELP ddr_registry_connections ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    eventually("all requests have ended", async || {
        let text = handle.render();
        text.contains("ddr_registry_requests_in_flight 0\n")
            && text.contains("ddr_registry_connections 0\n")
    })
    .await;
}
