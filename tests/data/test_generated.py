import pytest

from mvit.cli import main


def test_a_generated_folder_is_a_function_of_its_seed_and_replaces_only_its_like(tmp_path, capsys):
    arguments = ["synthetic", str(tmp_path / "a"), "--classes", "3", "--train", "7", "--val", "2", "--size", "500x375"]
    assert main.main(arguments) == 0
    files = sorted((tmp_path / "a").glob("*/*/*.jpg"))
    assert len(files) == 9
    assert all(80_000 < path.stat().st_size < 130_000 for path in files)
    first = files[0].read_bytes()
    assert main.main(arguments) == 2
    assert "a' already exists; use another directory, or --overwrite" in capsys.readouterr().err
    assert main.main([*arguments, "--overwrite"]) == 0
    assert files[0].read_bytes() == first
    assert main.main([*arguments, "--overwrite", "--seed", "2"]) == 0
    assert files[0].read_bytes() != first
    (tmp_path / "a" / "synthetic.json").unlink()
    assert main.main([*arguments, "--overwrite"]) == 2
    assert "was not generated: it has no synthetic.json" in capsys.readouterr().err


def test_too_few_images_for_the_classes_are_one_line(tmp_path, capsys):
    assert main.main(["synthetic", str(tmp_path / "a"), "--train", "3"]) == 2
    assert capsys.readouterr().err == "mvit: --train: 3 is too few images for 4 classes; use at least 4\n"
    (tmp_path / "file").write_text("")
    assert main.main(["synthetic", str(tmp_path / "file" / "a")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_size_that_no_memory_holds_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main.main(["synthetic", str(tmp_path / "a"), "--size", "100000x3"])
    assert capsys.readouterr().err.endswith("'100000x3' must be at most 8192 pixels on each side\n")
