# For those who have nothing but Docker, and for a Hugging Face Space. The pins are the course's own: `course.py setup`
# reads requirements.txt, as on every other machine.
#
#   docker build -t course .
#   docker run --rm -p 127.0.0.1:7860:7860 course       prints a link to http://127.0.0.1:7860: open it
#
# What you write is gone with the container. To keep it, add `-v course:/home/user/course/notebooks`.
# A Space (its README.md begins with `sdk: docker`) shows port 7860 to everybody: set a secret JUPYTER_TOKEN there, which
# the page then asks for, since who can open JupyterLab can run code.
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 1000 user && install --directory --owner=user --group=user /home/user/course
USER user
WORKDIR /home/user/course
COPY --chown=user:user . .

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN python course.py setup

EXPOSE 7860
CMD ["python", "course.py", "lab", "--no-browser", "--ip=0.0.0.0", "--port=7860", "--ServerApp.port_retries=0"]
