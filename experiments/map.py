"""The main job: every family on the embedded data, one after the other, then one page that compares them.

    python experiments/map.py                      (6.5 minutes on 2 CPU cores)
    python experiments/map.py --workdir DIR --steps 200     any flag of the experiments is passed on

Each experiment is a run of its own below the working directory. Stopped and started again, the job goes on.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

EXPERIMENTS = ("gpt_pydoc", "vae_digits", "ebm_digits", "score_digits", "gan_digits")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/map"), help="folder of the runs and of the page")
    args, passed_on = parser.parse_known_args()
    folders = [args.workdir.absolute() / name for name in EXPERIMENTS]
    for i, folder in enumerate(folders, 1):
        print(f"[{i}/{len(folders)}] {folder.name}", flush=True)
        script = Path(__file__).with_name(f"{folder.name}.py")
        child = subprocess.Popen([sys.executable, str(script), "--workdir", str(folder), *passed_on])
        signal.signal(signal.SIGTERM, lambda number, _frame, child=child: child.send_signal(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child too; it saves and says how it ended
        code = child.wait()
        if code:
            print(f"{folder.name} stopped with exit code {code}; run the same command again to go on", file=sys.stderr)
            return code if code > 0 else 128 - code

    from genmap_jax.report.page import write_page  # matplotlib and jinja2 only once there is something to draw

    print(f"\nThe map: {write_page(folders, args.workdir.absolute() / 'map.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
