"""A bot in threads, for a chat of plain text lines: one thread listens and answers, others remind people.

    python -m wsproto_fast broadcast
    python threaded_bot.py ws://localhost:8765
    python -m wsproto_fast connect ws://localhost:8765          and type !help

Ctrl-C says goodbye and ends it. When the chat goes away the bot comes back with it.
"""

from __future__ import annotations

import argparse
import random
import re
import threading
import time

from wsproto_fast import ConnectionClosed
from wsproto_fast.threading import Session

HELP = "!time, !roll 2d6, !remind SECONDS TEXT"


class Bot:
    """Any thread may send; one receives."""

    def __init__(self, uri: str) -> None:
        self.session = Session(uri, on_open=lambda connection: connection.send("bot: hello, I know !help"))
        self.reminders: set[threading.Timer] = set()

    def run(self) -> None:
        with self.session:
            try:
                for line in self.session:
                    if isinstance(line, str) and line.startswith("!"):
                        self.say(self.answer(*line[1:].split(maxsplit=1)))
            except KeyboardInterrupt:
                self.say("goodbye")
            finally:
                for reminder in self.reminders.copy():
                    reminder.cancel()

    def say(self, text: str) -> None:
        self.session.send(f"bot: {text}")

    def answer(self, command: str = "", argument: str = "") -> str:
        if command == "time":
            return time.strftime("%H:%M:%S")
        if command == "roll":
            return self.roll(argument)
        if command == "remind":
            return self.remind(argument)
        return HELP

    def roll(self, dice: str) -> str:
        found = re.fullmatch(r"(\d{1,2})d(\d{1,3})", dice)
        if found is None or not int(found[2]):
            return "!roll 2d6 rolls two dice with six sides"
        rolled = [random.randint(1, int(found[2])) for _ in range(int(found[1]))]
        return f"{' + '.join(map(str, rolled))} = {sum(rolled)}"

    def remind(self, argument: str) -> str:
        seconds, _, text = argument.partition(" ")
        if not re.fullmatch(r"\d{1,4}(\.\d+)?", seconds) or not text:
            return "!remind 5 tea says so in five seconds"

        def due() -> None:
            self.reminders.discard(reminder)
            try:
                self.say(f"it is time: {text}")
            except ConnectionClosed:
                pass  # the session has ended meanwhile

        reminder = threading.Timer(float(seconds), due)
        reminder.daemon = True
        self.reminders.add(reminder)
        reminder.start()
        return f"in {seconds} seconds: {text}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("uri")
    Bot(parser.parse_args().uri).run()
