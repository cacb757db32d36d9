"""Mistakes in images, seeds, and the numbers that are published."""

# ruff: noqa: E501 - a mistake is a line of code, which is not broken here

from tests.statistics.mutations.mutant import Mutant

IMAGES = "test_images.py::"
FRECHET = "eval/test_frechet.py::"
QUALITY = "eval/test_quality.py::"
DETECTION = "eval/test_detection.py::"
SCORES = "eval/test_scores.py::"
MEASURES = "eval/test_statistics.py::"
P_VALUES = "eval/test_calibration.py::"
ATTACKS = "eval/test_attack.py::"
PURIFY = "eval/test_purify.py::"

LEVELS = [
    ("levels are truncated", "(x * 127.5 + 128)", "(x * 127.5 + 127.5)",
     IMAGES + "test_values_between_go_to_the_nearest_level"),
    ("levels wrap round", ".clamp(0, 255).to", ".to", IMAGES + "test_values_outside_saturate"),
    ("the range is [0, 1]", "x.float() / 127.5 - 1", "x.float() / 255",
     IMAGES + "test_levels_survive_the_way_there_and_back"),
]  # fmt: skip

SEEDS = [
    ("all places share a stream", "[seed, *words]", "[seed]",
     "test_seeds.py::test_every_place_has_a_stream_of_its_own"),
    ("seeds and places are added up", "[seed, *words]", "[seed + sum(words)]",
     "test_seeds.py::test_every_place_has_a_stream_of_its_own"),
]  # fmt: skip

DISTANCE = [
    ("the cross term counts once", "- 2 * cross)", "- cross)",
     FRECHET + "test_fewer_rows_than_dimensions_are_at_no_distance_from_themselves"),
    ("means do not count", "(a.mean - b.mean).square().sum() + traces", "0 * a.mean.sum() + traces",
     FRECHET + "test_covariances_that_commute"),
    ("the cross term of covariances that do not commute", "product = root @ b.covariance @ root",
     "product = root @ root @ b.covariance", FRECHET + "test_two_dimensions_by_hand"),
    ("the covariance is divided by n", "/ max(len(features) - 1, 1)", "/ len(features)",
     FRECHET + "test_shards_add_up_to_the_whole"),
    ("moments in float32", "features = features.double()", "features = features.float()",
     FRECHET + "test_moments_are_float64_whatever_comes_in"),
    ("shards apart count too much", "(self.n * other.n / n)", "(self.n + other.n)",
     FRECHET + "test_shards_add_up_to_the_whole"),
    ("extrapolated to no samples", "np.polyfit(1 / sizes, distances, 1)",
     "np.polyfit(sizes, distances, 1)", FRECHET + "test_bias_of_a_finite_sample_and_its_removal"),
]  # fmt: skip

OF_FEATURES = [
    ("a subset's rows meet themselves", "xx.sum() - xx.trace() + yy.sum() - yy.trace()",
     "xx.sum() + yy.sum()", QUALITY + "test_kernel_distance_is_unbiased"),
    ("the kernel is quadratic", "/ x.shape[1] + 1) ** 3", "/ x.shape[1] + 1) ** 2",
     QUALITY + "test_kernel_distance_of_opposite_points"),
    ("splits are not shuffled", "logits.double().cpu()[order].log_softmax(1)",
     "logits.double().cpu().log_softmax(1)",
     QUALITY + "test_samples_sorted_by_class_are_shuffled_before_they_are_split"),
    ("a row is its own neighbour", "found.values[:, k]",
     "found.values[:, k - 1]",
     QUALITY + "test_overlap_by_its_definition_in_chunks_of_any_size"),
    ("precision and recall change places", "precision=float(inside_real.double().mean())",
     "precision=float(torch.cat(inside_fake).double().mean())",
     QUALITY + "test_overlap_by_its_definition_in_chunks_of_any_size"),
]  # fmt: skip

DETECT = [
    ("the AUROC of the other sign", "torch.unique(-torch.cat(parts)", "torch.unique(torch.cat(parts)",
     DETECTION + "test_two_normal_laws"),
    ("ties are lost", "(below + id_counts / 2)", "below", DETECTION + "test_all_ties_and_chance"),
    ("95 % exactly is not enough", "20 * true >= 19", "20 * true > 19",
     DETECTION + "test_the_first_threshold_that_reaches_95_percent_counts"),
    ("one convention under both names", '"fpr95_id_positive": _false_positives(downs[0], downs[1])',
     '"fpr95_id_positive": _false_positives(ups[1], ups[0])', DETECTION + "test_two_normal_laws"),
    ("precision of everything", "precision = true / (true + false).clamp(min=1)",
     "precision = true / (positives.sum(1) + negatives.sum(1))[:, None]",
     DETECTION + "test_equals_scikit_learn_with_and_without_ties"),
]  # fmt: skip

SCORE = [
    ("too likely is not untypical", '(s["energy"] - validation["energy"].mean()).abs()',
     's["energy"] - validation["energy"].mean()', SCORES + "test_values"),
    ("the ratio upside down", 's["energy"] - s["background"]', 's["background"] - s["energy"]',
     SCORES + "test_values"),
    ("confidence is out of distribution", 'return -s["max_logit"]', 'return s["max_logit"]',
     SCORES + "test_values"),
]  # fmt: skip

MEASURE = [
    ("the longer file counts", "8 * min(sizes)", "8 * max(sizes)",
     MEASURES + "test_the_shorter_file_counts_and_both_are_whole"),
    ("energies rise along the chain", 'found["energy"].double() - energy(refined.x).double()',
     'energy(refined.x).double() - found["energy"].double()',
     MEASURES + "test_refinement_runs_the_end_of_the_chain"),
    ("every image has the noise of the first", 'stream(seed, "refine", i, device=x.device)',
     'stream(seed, "refine", device=x.device)',
     MEASURES + "test_every_image_and_seed_has_noise_of_its_own"),
]  # fmt: skip

CALIBRATE = [
    ("p-values reach 0", "scores.contiguous()) + 1).double()", "scores.contiguous())).double()",
     P_VALUES + "test_p_is_the_share_that_scores_at_least_as_high"),
    ("scores are compared with what they were fitted on", "scores = scores[1::2]",
     "scores = scores[::2]", P_VALUES + "test_what_is_fitted_is_compared_with_the_other_half_and_the_rest_with_all"),
]  # fmt: skip

ATTACK = [
    ("the best wrong class may be the right one", ".scatter(1, y[:, None], -torch.inf)", "",
     ATTACKS + "test_margins_are_above_zero_for_errors_alone"),
    ("changes of length 2 go as far as one likes", ".clamp_min(radius))", ")",
     ATTACKS + "test_nothing_leaves_the_ball_nor_the_range"),
    ("images leave the range", "(x + change).clamp(-1, 1)", "x + change",
     ATTACKS + "test_nothing_leaves_the_ball_nor_the_range"),
    ("it goes downhill", "radius * uphill, x", "radius * -uphill, x",
     ATTACKS + "test_the_worst_of_a_linear_classifier_is_its_dual_norm"),
    ("the last image is taken for the worst", "found.detach() > most", "found.detach() == found",
     ATTACKS + "test_the_worst_image_on_the_way_is_kept"),
]  # fmt: skip

PURE = [
    ("no noise is put on", "t * x + (1 - t) * noise", "t * x",
     PURIFY + "test_images_go_back_to_a_time_and_on_from_there"),
    ("the chain begins anew", "self.trained.chain.after(begin)", "self.trained.chain",
     PURIFY + "test_at_the_image_itself_the_rest_of_the_chain_is_run"),
    ("runs are added", ".mean(1)", ".sum(1)",
     PURIFY + "test_the_derivative_of_a_gaussian_chain_is_its_linear_map"),
    ("the derivative forgets the step size", "moved = x - value_at(chain.step_size, step) * gradient",
     "moved = x - gradient", PURIFY + "test_the_derivative_is_that_of_the_unrolled_chain"),
    ("the derivative goes through what was cut", "v = v * (after.abs() < 1)", "pass",
     PURIFY + "test_the_derivative_is_that_of_the_unrolled_chain"),
    ("the derivative is taken one step late", "ctx.visited[step].requires_grad_()",
     "ctx.visited[step + 1].requires_grad_()",
     PURIFY + "test_the_derivative_is_that_of_the_unrolled_chain"),
]  # fmt: skip

MUTANTS = [
    Mutant(name, file, old, new, test)
    for file, group in [
        ("images.py", LEVELS), ("seeds.py", SEEDS), ("eval/frechet.py", DISTANCE),
        ("eval/quality.py", OF_FEATURES), ("eval/detection.py", DETECT), ("eval/scores.py", SCORE),
        ("eval/statistics.py", MEASURE), ("eval/calibration.py", CALIBRATE),
        ("eval/attack.py", ATTACK), ("eval/purify.py", PURE),
    ]
    for name, old, new, test in group
]  # fmt: skip
