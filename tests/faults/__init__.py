"""What can go wrong, injected on purpose. Each fault has a number; here is where it is tested.

 1 killed while saving            faults/test_saving.py
 2 disk full while saving         faults/test_saving.py, eval/test_score_command.py::test_a_full_disk_is_said_and_gone_on_after
 3 no permission to save          faults/test_saving.py, test_files.py::test_a_folder_that_cannot_be_written_is_named
 4 `last` torn or bits flipped    faults/test_saving.py
 5 N + N updates are 2N           training/test_resume.py::test_stopped_and_resumed_equals_uninterrupted
 6 SIGTERM anywhere               faults/test_signals.py, test_train.py::test_a_signal_waits_for_the_update_and_the_run_goes_on
 7 a second signal, while saving  faults/test_saving.py, test_train.py::test_a_second_signal_would_end_it_at_once
 8 NaN in batch, energy or chain  faults/test_divergence.py, training/test_guard.py::test_lost_chains_begin_anew_and_the_others_are_untouched
 9 lasting divergence             faults/test_divergence.py, training/test_guard.py::test_goes_back_to_what_was_good
10 out of memory                  test_memory.py, test_sample.py::test_out_of_memory_takes_smaller_bites_of_the_same_images, eval/test_score_command.py::test_out_of_memory_halves_the_chunk_and_not_the_scores
11 broken and odd image files     eval/test_score_command.py::test_every_file_has_one_row_and_nothing_stands_for_a_failed_one
12 an image of 900 megapixels     eval/test_score_command.py::test_a_huge_image_takes_no_memory, data/test_folder.py::test_more_than_fifty_megapixels_are_refused_before_decoding
13 hostile archives               data/test_arrays.py::test_a_lying_archive_allocates_nothing
14 hostile .npz                   data/test_arrays.py::test_object_arrays_are_never_unpickled, data/test_arrays.py::test_a_lying_header_allocates_nothing
15 hostile checkpoints            faults/test_hostile.py, test_checkpoint.py::test_nothing_in_a_checkpoint_is_executed
16 hostile ImageNet batches       data/test_imagenet32.py::test_a_malicious_pickle_never_runs, data/test_imagenet32.py::test_the_stand_ins_cannot_be_turned_into_tools
17 a checkpoint of other things   faults/test_hostile.py, test_checkpoint.py::test_weights_of_another_architecture_are_named, test_checkpoint.py::test_a_newer_format_asks_for_an_update
18 a worker killed                faults/test_signals.py
19 scoring cut short              eval/test_score_command.py::test_what_was_cut_anywhere_goes_on_to_the_same_bytes
20 names that are code            eval/test_score_command.py::test_names_are_safe_and_come_back
21 two runs, one folder           faults/test_saving.py, eval/test_score_command.py::test_one_process_at_a_time
22 no network                     data/test_torchvision_sets.py::test_a_failed_download_says_what_goes_where
23 grey, empty, a single image    eval/test_score_command.py::test_one_grey_image_of_another_size, data/test_folder.py::test_empty_and_ambiguous_folders_are_refused

On demand, as they take minutes: `python -m tests.faults.kill` kills runs of training and scoring at
random moments, `python -m tests.faults.soak` injects NaN now and then.
"""  # noqa: E501
