//! Where each row, rule, trap and lesson of the registry protocol is held, and that it is.
//!
//! The rows are those of distribution-spec (after 1.1.1), "Endpoints"; rules are easy to miss in
//! its text; traps are what its conformance program looks at; lessons are what broke with other
//! registries. A name in the table is a test of any crate; a test that is renamed must be renamed
//! here. What no other file holds is in `rows` and `lessons`.

mod lessons;
mod rows;

use std::fs;
use std::path::Path;

/// What must hold, and the tests that show it.
const HELD: [(&str, &[&str]); 61] = [
    ("end-1", &["ping_says_what_it_is", "lesson_03_no_challenge_where_nothing_is_protected"]),
    (
        "end-2",
        &["get_and_head_have_the_same_headers", "ranges", "a_large_blob_comes_back_byte_for_byte"],
    ),
    ("end-3", &["a_manifest_comes_back_as_it_was_pushed", "a_range_of_a_manifest"]),
    ("end-4a", &["a_session_begins_empty_at_a_relative_location"]),
    ("end-4b", &["post_with_the_digest_takes_the_whole_blob"]),
    ("end-4c", &["end_04c_the_algorithm_is_a_hint"]),
    (
        "end-5",
        &["chunks_in_order_and_the_last_one_in_the_put", "streamed_patches_without_length_append"],
    ),
    (
        "end-6",
        &[
            "post_then_put_with_the_whole_blob",
            "a_chunk_out_of_order_is_416_and_the_client_can_go_on",
        ],
    ),
    (
        "end-7a",
        &[
            "a_manifest_comes_back_as_it_was_pushed",
            "referrers_are_listed_and_filtered_and_go_with_their_manifest",
        ],
    ),
    ("end-7b", &["pushed_by_digest_with_tags", "at_least_ten_tag_parameters_are_taken"]),
    ("end-8a", &["tags_in_pages", "end_08_n_of_any_size"]),
    ("end-8b", &["tags_in_pages", "page_of_zero_is_a_page_and_last_works_alone"]),
    ("end-9", &["deletion_of_a_tag_and_of_a_manifest"]),
    ("end-10", &["a_deleted_blob_is_gone_at_once"]),
    ("end-11", &["a_known_blob_is_mounted", "a_mount_without_from_finds_the_blob_itself"]),
    ("end-12a", &["an_unknown_subject_has_an_empty_list", "referrers_in_pages_with_their_filter"]),
    ("end-12b", &["referrers_are_listed_and_filtered_and_go_with_their_manifest"]),
    (
        "end-13",
        &[
            "a_session_begins_empty_at_a_relative_location",
            "chunks_of_a_megabyte_with_recovery_by_the_status",
        ],
    ),
    ("end-14", &["a_cancelled_session_is_gone", "an_upload_that_is_given_up_is_cancelled"]),
    ("catalog", &["the_catalog_in_pages"]),
    ("rule: names", &["malformed_names", "name_components_take_every_separator_of_the_grammar"]),
    ("rule: tags", &["tags_have_128_characters_and_no_leading_dot_or_dash"]),
    ("rule: absent subject", &["a_missing_subject_is_no_blob_that_must_be_there"]),
    ("rule: absent blobs", &["missing_blobs_are_named_where_they_are_required"]),
    ("rule: foreign layers", &["rule_foreign_layers_are_not_demanded"]),
    (
        "rule: size of manifests",
        &["a_manifest_of_nearly_four_megabytes_is_accepted", "a_manifest_over_the_limit_is_413"],
    ),
    (
        "rule: referrers",
        &[
            "referrer_type_is_the_stated_one_else_that_of_the_config_else_none",
            "a_page_of_referrers_is_no_larger_than_a_manifest",
        ],
    ),
    (
        "rule: referrers tag",
        &[
            "entries_of_a_referrers_tag_are_folded_in",
            "a_referrers_tag_leads_to_what_another_node_holds",
            "fallback_tags_are_cut_at_64_hex_digits",
        ],
    ),
    (
        "rule: algorithms",
        &[
            "sha512_is_a_digest_like_the_other",
            "unsupported_and_malformed_digests_are_400_never_500",
        ],
    ),
    (
        "rule: Warning",
        &[
            "a_manifest_whose_blobs_are_missing_is_taken_with_a_warning",
            "a_warning_of_many_blobs_keeps_its_limit",
        ],
    ),
    ("rule: Retry-After", &["every_error_of_the_node_says_what_to_do_next"]),
    (
        "rule: error codes",
        &["ten_thousand_malformed_requests", "error_bodies_have_the_json_of_the_specification"],
    ),
    ("rule: chunk min length", &["a_byte_at_a_time_is_an_upload_too"]),
    ("trap c: DELETE of a blob", &["a_deleted_blob_is_gone_at_once"]),
    (
        "trap d: exact types",
        &["parameters_of_the_content_type_are_not_kept", "an_unknown_subject_has_an_empty_list"],
    ),
    ("trap e: Location after 201", &["trap_e_every_location_after_201_can_be_fetched"]),
    ("trap f: shape of the upload path", &["a_session_begins_empty_at_a_relative_location"]),
    ("trap g: reversed range", &["the_six_ranges_that_conformance_asks_for", "ranges"]),
    (
        "trap h: untouched session",
        &["the_range_of_a_session_is_never_empty", "a_session_begins_empty_at_a_relative_location"],
    ),
    ("trap i: sha512 without a hint", &["end_04c_the_algorithm_is_a_hint"]),
    (
        "trap: gone at once",
        &["deletion_of_a_tag_and_of_a_manifest", "a_deleted_blob_is_gone_at_once"],
    ),
    (
        "lesson 01",
        &[
            "lesson_01_a_tag_that_head_finds_its_digest_finds_too",
            "a_response_that_cannot_be_completed_ends_short_on_the_wire",
            "when_the_only_holder_dies_the_response_ends_short",
        ],
    ),
    (
        "lesson 02",
        &["lesson_02_what_nobody_has_is_a_plain_no", "what_nobody_has_is_a_no_everywhere"],
    ),
    ("lesson 03", &["lesson_03_no_challenge_where_nothing_is_protected"]),
    ("lesson 04", &["a_mount_that_cannot_be_becomes_an_upload"]),
    ("lesson 05", &["lesson_05_location_is_relative_whatever_a_proxy_says"]),
    ("lesson 06", &["lesson_06_patch_without_length_then_an_empty_put"]),
    (
        "lesson 07",
        &["get_and_head_have_the_same_headers", "a_manifest_comes_back_as_it_was_pushed"],
    ),
    ("lesson 08", &["lesson_08_content_is_never_encoded"]),
    (
        "lesson 09",
        &[
            "lesson_09_open_ended_range_and_hang_up",
            "lesson_09_a_manifest_is_asked_for_by_an_open_range",
            "each_range_is_a_part_in_the_order_of_the_request",
        ],
    ),
    (
        "lesson 10",
        &[
            "lesson_10_a_manifest_without_a_type_keeps_the_pushed_one",
            "a_tag_moves_also_from_manifest_to_index",
        ],
    ),
    ("lesson 11", &["whatever_is_accepted_the_type_stays"]),
    ("lesson 12", &["lesson_12_a_sparse_index_is_accepted"]),
    // The names of docker.io are a matter of mirrors, which this version has not; `ns` is ignored.
    ("lesson 13", &["the_host_parameter_of_mirrors_is_ignored"]),
    (
        "lesson 14",
        &[
            "client_ports_stay_on_loopback",
            "clients_of_this_machine_are_served_by_all_their_names_for_it",
            "old_http_is_answered",
        ],
    ),
    ("lesson 15", &["twenty_readers_make_one_fetch"]),
    (
        "lesson 16",
        &[
            "lesson_16_encoded_mount_and_the_cancel_of_a_failed_one",
            "lesson_16_parameters_in_any_order",
        ],
    ),
    (
        "lesson 17",
        &[
            "the_catalog_in_pages",
            "a_repository_without_tags_has_an_empty_list_and_an_unknown_one_none",
        ],
    ),
    ("lesson 18", &["lesson_18_signatures_pushed_at_once_are_all_listed"]),
    (
        "lesson 19",
        &[
            "no_client_sees_a_wrong_byte_or_the_end_of_a_lie",
            "a_part_that_one_node_alone_vouches_for_is_proven_by_the_whole",
        ],
    ),
    ("lesson 20", &["a_digest_is_no_licence_to_read"]),
];

/// The text of every Rust file below `folder`.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_row_rule_trap_and_lesson_is_held_by_a_test() {
    let mut all = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut all);
    for (what, tests) in HELD {
        assert!(!tests.is_empty(), "{what}");
        for test in tests {
            let name = format!("fn {test}()");
            let mut found = all.match_indices(&name);
            // Another crate may have a function of that name that is none.
            let has_attribute = |(at, _)| {
                let lines = all[..at].rsplit('\n').take(3);
                lines
                    .into_iter()
                    .any(|line: &str| line.contains("test]") || line.contains("::test("))
            };
            assert!(found.any(has_attribute), "{what}: there is no test {test}");
        }
    }
}
