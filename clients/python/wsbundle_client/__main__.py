"""`python -m wsbundle_client`: the same as the command `wsbundle-client`."""

from wsbundle_client.command import run

if __name__ == "__main__":
    run()
