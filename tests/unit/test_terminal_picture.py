"""What a terminal shows in the end is what the picture shows."""

from outhaul.deploy.demo.terminal_picture import TARGET, final_lines, svg_of


def test_a_bar_is_seen_as_it_was_drawn_last() -> None:
    bar = "one 1/2\n\x1b[?25l\x1b[1A\x1b[2Kone 2/2\n\rtwo\r\x1b[2Kthree\n"
    assert final_lines(bar) == ["one 2/2", "three", ""]


def test_the_picture_fetches_nothing_and_is_small() -> None:
    made = svg_of("\x1b[32mfine\x1b[0m\nBy carrier\nlong\n")
    assert "fine" in made
    assert "long" not in made
    for picture in (made, TARGET.read_text()):
        assert "url(http" not in picture
        assert "@font-face" not in picture
        assert len(picture) < 200_000
